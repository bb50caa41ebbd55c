"""
Trackers: one program sends a job's metrics to one of them, with the tracker's own library.

``python -m peft_studio.trackers NAME`` is a process of its own, so that a library that hangs, forks or dies touches
nothing else. It reads lines of JSON from its standard input and answers each with one line (``contract``); nothing
secret is in its arguments or in its environment.
"""
