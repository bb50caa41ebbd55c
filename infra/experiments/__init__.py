"""Experiments: jobs and the runs of trackers, listed, compared and drawn."""
