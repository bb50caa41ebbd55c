"""Deployments on platforms: brought about, asked, kept an eye on and taken off again."""
