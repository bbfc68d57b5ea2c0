"""From a job description to a queued, requeued, finished batch job."""
