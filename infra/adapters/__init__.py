"""Adapters: the store, where they came from, what they stand on, and training them again."""
