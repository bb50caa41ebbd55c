"""Sweeps over hyperparameters: points, their jobs, and which of them are stopped early."""
