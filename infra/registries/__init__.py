"""Registries of adapters beside the studio's own store: what is sent to them, how, and what became of it."""
