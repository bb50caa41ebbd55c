"""Machines to train on, one module per vendor."""
