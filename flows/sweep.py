"""
The sweep: what is still rented or deployed and nobody wants is ended, wherever the studio is connected.

    prefect deployment run 'sweep/default'
"""

import asyncio

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from infra.credentials import CredentialsInPrefect
from infra.deploying.hosting import Hosting
from infra.deploying.runs import DeployRunsInPrefect
from infra.deploying.sweep import DeploymentSweep
from infra.machines.sweep import Sweeper, SweepReport
from infra.serving.records import DeploymentsInPrefect
from infra.settings import settings


@flow(name="sweep", timeout_seconds=1500, retries=0)
def sweep() -> dict[str, int]:
    """Look through all connected accounts once; return how much was ended, left alone, and not understood."""
    hosting = Hosting(CredentialsInPrefect(), settings())
    deployments = DeploymentSweep(DeploymentsInPrefect(), hosting, DeployRunsInPrefect(), settings())
    try:
        report = Sweeper(settings()).sweep()
    except Exception:  # the leases of deployments end whatever becomes of machines
        asyncio.run(deployments.look(SweepReport()))
        raise
    asyncio.run(deployments.look(report))
    if report.is_worth_telling:
        create_markdown_artifact(report.as_markdown(), key="sweep", description="What the last sweep found")
    return report.counts()
