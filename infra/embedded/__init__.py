"""One command that runs the whole studio on one machine."""
