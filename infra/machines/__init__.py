"""Machines as jobs have them: got, worked on, given back, paid for."""
