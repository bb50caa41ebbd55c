"""Trackers, seen from the studio: what is sent to them, how far that has come, and what they are asked."""
