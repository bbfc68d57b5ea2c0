"""From hosts to running ranks, and the Horovod they run on."""
