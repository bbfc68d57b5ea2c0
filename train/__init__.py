"""One rank's work: data order, step, loop, checkpoint, evaluation, prediction."""
