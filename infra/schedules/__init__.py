"""Schedules: when they run, how Prefect keeps them, and what each run does."""
