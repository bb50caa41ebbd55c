"""A client of the real API, with a studio in memory behind it."""

from tests.integration.api.fixtures import client, connect, credentials, deployments, jobs

__all__ = ["client", "connect", "credentials", "deployments", "jobs"]
