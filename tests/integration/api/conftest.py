"""A client of the real API, with a studio in memory behind it."""

from tests.integration.api.fixtures import (
    client,
    connect,
    coordination,
    credentials,
    deploy_runs,
    deployments,
    evaluation_runs,
    export_runs,
    jobs,
)

__all__ = [
    "client",
    "connect",
    "coordination",
    "credentials",
    "deploy_runs",
    "deployments",
    "evaluation_runs",
    "export_runs",
    "jobs",
]
