"""
The sweep: what is still rented and belongs to no live job is ended, at every vendor the studio is connected to.

    prefect deployment run 'sweep/default'
"""

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from infra.machines.sweep import Sweeper
from infra.settings import settings


@flow(name="sweep", timeout_seconds=1500, retries=0)
def sweep() -> dict[str, int]:
    """Look through all connected accounts once; return how many machines were ended, left alone, and not understood."""
    report = Sweeper(settings()).sweep()
    if report.is_worth_telling:
        create_markdown_artifact(report.as_markdown(), key="sweep", description="What the last sweep found")
    return report.counts()
