"""One step of a job, one file."""
