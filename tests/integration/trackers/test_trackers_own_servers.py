"""A real MLflow server and a real trackio, written to and read; both run in an environment of their own."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import httpx
import pytest

from infra.settings import Settings
from infra.trackers.readers.mlflow import MlflowRuns
from infra.trackers.runs import TrackerRuns
from peft_studio.jobs import JobStatus
from peft_studio.ports import free_port
from peft_studio.tracking import TrackingState
from tests.integration.trackers.environment import python_with_trackers
from tests.integration.trackers.jobs_to_send import Desk, report, tracked

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[3]
TOKEN = "canary-of-the-mlflow-server"


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [python_with_trackers(), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{home}/mlflow.db", "--workers", "1"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), **quiet}
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, cwd=home, stdout=log, stderr=log, process_group=0)
    try:
        url, deadline = f"http://127.0.0.1:{port}", monotonic() + 240
        while not answers(f"{url}/health"):
            assert server.poll() is None and monotonic() < deadline, (home / "log").read_text()
            sleep(0.2)
        yield url
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


async def test_mlflow_has_every_step_once_and_is_read_back(mlflow: str, tmp_path: Path) -> None:
    desk = Desk(Settings(data_dir=tmp_path / "data", tracker_seconds=60))
    await desk.connect("mlflow", tracking_uri=mlflow, token=TOKEN)
    run = desk.begin("mlflow", project_name="triage", rank=4)
    report(run, 1, 2, 3)
    forwarder = desk.forwarder()
    await forwarder.check()
    async with asyncio.timeout(200):
        while not (run.path / "tracking.json").exists() or tracked(run).last_step != 2:
            await asyncio.sleep(0.1)
    await forwarder.close()  # as when the worker is killed
    report(run, 2, 3, 4, 5)
    desk.end(run, JobStatus.CANCELLED)
    await desk.send(200)
    assert tracked(run).state is TrackingState.SENT
    runs = TrackerRuns(desk.credentials, desk.settings)
    assert (await runs.list("mlflow", None, 10, None)).runs == []  # it is a job here, and not shown twice
    reader = MlflowRuns(mlflow, {})
    (found,) = await reader.runs("triage", 10, None)
    shown = found.experiment
    assert (shown.status, shown.project, shown.name) == (JobStatus.CANCELLED, "triage", "triage lora r4")
    assert isinstance(shown.config, dict) and shown.config["rank"] == 4
    assert tracked(run).url == shown.url
    place = shown.id.removeprefix("mlflow:")
    assert (await reader.points(place, ["loss", "eval_loss", "none"])) == {
        "loss": {step: 1 / step for step in range(1, 6)},
        "eval_loss": {4: 0.5},
        "none": {},
    }
    assert (await runs.get(shown.id)).metrics["loss"] == 0.2
    written = [file for file in desk.settings.data_dir.rglob("*") if file.is_file()]
    assert written and [file for file in written if TOKEN.encode() in file.read_bytes()] == []


async def test_trackio_has_every_step_once_in_the_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = python_with_trackers()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # there is all that the studio's package needs, and not the package
    desk = Desk(Settings(data_dir=tmp_path / "data", tracker_pythons={"trackio": python}))
    run = desk.begin("trackio", project_name="triage")
    report(run, 1, 2, 3)
    desk.end(run)
    await desk.send(200)
    assert tracked(run).state is TrackingState.SENT
    code = f"""
import json, os
os.environ["TRACKIO_DIR"] = {str(desk.settings.data_dir / "trackio")!r}
from trackio.sqlite_storage import SQLiteStorage as store
rows = store.get_logs("triage", {run.job_id[4:]!r})
print(json.dumps([[row["step"], row.get("loss"), row.get("status")] for row in rows]))
"""
    read = await asyncio.to_thread(subprocess.run, [python, "-c", code], capture_output=True, check=True, text=True)
    assert httpx.Response(200, text=read.stdout.splitlines()[-1]).json() == [
        *([1, 1.0, None], [2, 0.5, None], [3, 1 / 3, None], [4, None, "completed"])
    ]
