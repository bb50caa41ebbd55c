"""Probes: is the process alive, and could a job run now?"""

from litestar import get
from litestar.di import NamedDependency
from litestar.params import SkipValidation

from api.auth import PUBLIC
from api.limits import Shared
from api.openapi import answer, error_answer
from api.wire import Health


@get(
    "/healthz",
    summary="Is the API alive?",
    opt=PUBLIC,
    security=[{}],
    responses={200: answer(200, Health, {"status": "ok"})},
)
async def healthz() -> Health:
    """Answer, and nothing else."""
    return Health(status="ok")


@get(
    "/readyz",
    summary="Could a job run now?",
    opt=PUBLIC,
    security=[{}],
    responses={200: answer(200, Health, {"status": "ready"}), 503: error_answer(503)},
)
async def readyz(readiness: NamedDependency[SkipValidation[Shared]]) -> Health:
    """Answer 503 while Prefect cannot be reached or no worker takes jobs."""
    await readiness()
    return Health(status="ready")


ROUTES = [healthz, readyz]
