"""The order of a job's steps."""
