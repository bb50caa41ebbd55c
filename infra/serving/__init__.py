"""Adapters put to use: the local endpoint, and the deployments on it."""
