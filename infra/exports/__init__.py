"""Exports of adapters: their flow runs, their files, and the daemon that some of them are handed to."""
