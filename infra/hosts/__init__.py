"""Platforms that serve adapters, one module each behind the contract in ``base``."""
