"""Evaluations of adapters: their flow runs, and the judge that some of them ask."""
