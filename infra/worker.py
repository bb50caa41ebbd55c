"""
The warm worker: takes jobs from the work pool, and starts each in a process that has its imports done.

    python -m infra.worker

It is Prefect's own process worker; only its command differs (``infra.warm``), and it asks for work twice a second.
A stock ``prefect worker start --pool studio`` does the same job, some seconds slower.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.schedules import Cron
from prefect.settings import PREFECT_WORKER_QUERY_SECONDS, temporary_settings
from prefect.workers.process import ProcessWorker

from infra import warm
from infra.deploying.recovery import DeployRecovery
from infra.evaluations.recovery import EvaluationRecovery
from infra.exports.recovery import ExportRecovery
from infra.jobs import recovery
from infra.jobs.recovery import CoordinatorRecovery, Recovery
from infra.planning import capabilities
from infra.serving.keeper import keep
from infra.settings import (
    COORDINATING_QUEUE,
    DEPLOYING_QUEUE,
    EVALUATION_QUEUE,
    EXPORT_QUEUE,
    HOUSEKEEPING_QUEUE,
    LOCAL_QUEUE,
    RENTED_QUEUE,
    WORK_POOL,
    Settings,
    settings,
)
from infra.trackers.forwarding import forward
from peft_studio.trainer.allocator import allocator_environment

log = logging.getLogger(__name__)
PRELOADED = [
    *("prefect.engine", "prefect.flow_engine", "flows.finetune", "flows.hyperparameters", "flows.scheduled"),
    "flows.deploy",
    *("torch", "transformers", "peft", "peft_studio.trainer.program"),
    *("uvicorn", "infra.serving.model", "infra.serving.routes"),
]
PREFECT_YAML = Path(__file__).parent.parent / "prefect.yaml"
POLL_SECONDS = 0.5  # how often the worker asks for work
READY = "worker.ready"  # a file in the data directory, there while this worker takes jobs
_WARM_COMMAND = [sys.executable, "-m", "infra.warm", "run", "prefect.engine"]


async def work(settings: Settings) -> None:
    """Serve until cancelled."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_keep_warm_server(settings))  # the slowest to start, and it needs nobody
        async with get_client() as client:
            while await client.api_healthcheck() is not None:
                await asyncio.sleep(0.1)
            await _create_pool(client, settings)
            await _register_deployments(client)
        await asyncio.to_thread(capabilities.probe, settings)
        worker = ProcessWorker(
            work_pool_name=WORK_POOL, name="warm", prefetch_seconds=1, create_pool_if_not_found=False
        )
        kinds = (Recovery, CoordinatorRecovery, ExportRecovery, EvaluationRecovery, DeployRecovery)
        group.create_task(recovery.keep([kind(settings) for kind in kinds]))
        group.create_task(keep(settings))
        group.create_task(forward(settings))
        group.create_task(worker.start())
        group.create_task(_tell_when_ready(worker, settings))


async def _create_pool(client: PrefectClient, settings: Settings) -> None:
    """Create the work pool and its queues, or bring them up to date."""
    template = ProcessWorker.get_default_base_job_template()
    variables = template["variables"]["properties"]
    # What serves people comes first: a job leaves them the processor whenever they want it, its trainer likewise.
    variables["command"]["default"] = shlex.join(["nice", "-n", str(settings.job_niceness), *_WARM_COMMAND])
    variables["working_dir"]["default"] = str(Path.cwd())  # relative paths mean the same to API, flow and trainer
    try:
        await client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type="process", base_job_template=template))
    except ObjectAlreadyExists:
        await client.update_work_pool(WORK_POOL, WorkPoolUpdate(base_job_template=template))
    # Jobs of this machine wait for each other; those of rented ones do not wait for them. The sweep waits for nobody,
    # nor does what starts jobs: in a queue with them it would hold the very place that they wait for.
    limits = {LOCAL_QUEUE: settings.local_jobs, RENTED_QUEUE: settings.rented_jobs}
    limits |= {EXPORT_QUEUE: settings.local_exports, EVALUATION_QUEUE: settings.local_evaluations}
    limits |= {DEPLOYING_QUEUE: settings.deploying_at_once}
    limits |= dict.fromkeys((HOUSEKEEPING_QUEUE, COORDINATING_QUEUE))
    for name, limit in limits.items():
        try:
            queue = await client.read_work_queue_by_name(name, work_pool_name=WORK_POOL)
        except ObjectNotFound:
            queue = await client.create_work_queue(name, work_pool_name=WORK_POOL)
        if queue.concurrency_limit != limit:
            await client.update_work_queue(queue.id, concurrency_limit=limit)


async def _register_deployments(client: PrefectClient) -> None:
    """Register what ``prefect.yaml`` lists, unless it is registered as it stands: schedules switched on stay on."""
    content = PREFECT_YAML.read_bytes()
    version = hashlib.sha256(content).hexdigest()[:12]
    for entry in yaml.safe_load(content)["deployments"]:
        flow = entry["entrypoint"].rsplit(".", 1)[1]
        with contextlib.suppress(ObjectNotFound):
            if (await client.read_deployment_by_name(f"{flow}/{entry['name']}")).version == version:
                continue
        await _deployment(entry, version).aapply()


def _deployment(entry: dict[str, Any], version: str) -> RunnerDeployment:
    pool = entry["work_pool"]
    return RunnerDeployment.from_entrypoint(
        entry["entrypoint"],
        name=entry["name"],
        description=entry["description"],
        version=version,
        parameters=entry.get("parameters"),
        schedules=[
            Cron(schedule["cron"], timezone=schedule["timezone"], active=schedule["active"])
            for schedule in entry.get("schedules", [])
        ],
        work_pool_name=pool["name"],
        work_queue_name=pool["work_queue_name"],
        job_variables=pool["job_variables"],
    )


async def _keep_warm_server(settings: Settings) -> None:
    """Run the server that forks warm processes; without it jobs still start, only slower."""
    address = os.environ[warm.SOCKET_VARIABLE]
    while True:
        server = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "infra.warm", "serve", address, *PRELOADED),
            stdin=subprocess.DEVNULL,
            env=os.environ | allocator_environment(),  # every trainer that it forks has its way with memory
        )
        try:
            log.warning("The warm server ended with code %s; starting it again.", await server.wait())
            await asyncio.sleep(1)
        finally:
            with contextlib.suppress(ProcessLookupError):
                server.kill()


async def _tell_when_ready(worker: ProcessWorker, settings: Settings) -> None:
    """Leave the file that says so, once jobs are taken and start warm."""
    while not (worker.is_setup and await _is_warm()):
        await asyncio.sleep(0.05)
    (settings.data_dir / READY).touch()


async def _is_warm() -> bool:
    """Ask the warm server for nothing: it answers once it has imported what it forks with."""
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_unix_connection(os.environ[warm.SOCKET_VARIABLE])
        with contextlib.closing(writer):
            writer.write_eof()
            return await reader.read() == warm.HERE
    return False


def main() -> None:
    """Run the worker until it is told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    data_dir = settings().data_dir
    for folder in (settings().runs, settings().adapters):
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="peft-studio-") as folder:  # socket paths must be short
        address = os.environ.setdefault(warm.SOCKET_VARIABLE, str(Path(folder) / "warm.sock"))
        Path(address).unlink(missing_ok=True)  # left behind by a worker that was killed
        (data_dir / READY).unlink(missing_ok=True)
        # Not by the environment: Prefect has read that already, when it was imported.
        with temporary_settings({PREFECT_WORKER_QUERY_SECONDS: POLL_SECONDS}), contextlib.suppress(KeyboardInterrupt):
            asyncio.run(work(settings()))


if __name__ == "__main__":
    main()
