"""Metrics on their way to trackers: real libraries, simulated services, and processes that are killed for real."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra.settings import Settings
from infra.simulators.accounts import GOOD
from infra.simulators.comet import SimulatedComet, create_comet
from infra.simulators.exchange import Reply
from infra.simulators.loopback import served
from infra.simulators.wandb import KEY, SimulatedWandb, create_wandb
from infra.trackers.sender import Sender
from infra.trackers.waiting import Waiting
from peft_studio.jobs import JobStatus
from peft_studio.run_dir import RunDir
from peft_studio.trackers.contract import Destination, Row
from peft_studio.tracking import Tracking, TrackingState
from tests.integration.trackers.jobs_to_send import Desk, report, said, tracked

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]


@pytest.fixture
def wandb() -> SimulatedWandb:
    return SimulatedWandb()


@pytest.fixture
def comet() -> SimulatedComet:
    return SimulatedComet()


@pytest.fixture
def desk(wandb: SimulatedWandb, comet: SimulatedComet, tmp_path: Path) -> Iterator[Desk]:
    with served(create_wandb(wandb)) as at_wandb, served(create_comet(comet)) as at_comet:
        yield Desk(Settings(data_dir=tmp_path / "data", platform_urls={"wandb": at_wandb, "comet": at_comet}))


def senders() -> list[psutil.Process]:
    return [one for one in psutil.Process().children(recursive=True) if is_sender(one)]


def is_sender(process: psutil.Process) -> bool:
    try:
        return "peft_studio.trackers" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # another test's process may have ended, or be about to
        return False


async def at_work_until(desk: Desk, run: RunDir, step: int) -> None:
    """Have a forwarder at work until it has handed over a step, then have its sender killed."""
    forwarder = desk.forwarder()
    await forwarder.check()
    async with asyncio.timeout(100):
        while not (run.path / "tracking.json").exists() or tracked(run).last_step != step:
            await asyncio.sleep(0.1)
    for sender in senders():
        sender.send_signal(signal.SIGKILL)
    await forwarder.settle()
    await forwarder.close()


async def test_wandb_has_every_step_once_although_sender_and_trainer_were_killed(
    desk: Desk, wandb: SimulatedWandb
) -> None:
    await desk.connect("wandb", api_key=KEY)
    tracking = Tracking(run_name="night", tags=["a"])
    run = desk.begin("wandb", project_name="triage", rank=4, tracking=tracking)
    report(run, 1, 2, 3, 4)
    await at_work_until(desk, run, 3)
    report(run, 3, 4, 5, 6)  # from the last checkpoint on
    desk.end(run)
    await desk.send()
    (shown,) = wandb.runs.values()
    assert [row["_step"] for row in shown.rows] == [1, 2, 3, 4, 5, 6]
    assert [row["loss"] for row in shown.rows] == [1 / step for step in range(1, 7)]
    assert shown.rows[3]["eval_loss"] == 0.5
    assert (shown.name, shown.display_name, shown.project, shown.state) == (
        run.job_id[4:],
        "night",
        "triage",
        "finished",
    )
    assert shown.tags == ["peft-studio", "a"]
    assert '"rank":{"value":4}' in shown.config and "s3://bucket/rows" in shown.config
    assert "hidden" not in shown.config
    assert (tracked(run).state, tracked(run).last_step) == (TrackingState.SENT, 6)
    assert (tracked(run).url or "").endswith(f"/alice/triage/runs/{run.job_id[4:]}")
    assert senders() == []


async def test_a_wandb_that_refuses_the_key_is_said_once_and_gets_all_of_it_later(
    desk: Desk, wandb: SimulatedWandb
) -> None:
    await desk.connect("wandb", api_key=KEY)
    run = desk.begin("wandb")
    report(run, 1, 2)
    wandb.key = "another"
    for _ in range(2):
        await desk.try_once()
    assert len(said(run, "WARNING")) == 1 and "refuses the credentials" in said(run, "WARNING")[0]
    assert tracked(run).state is TrackingState.WAITING
    desk.end(run, JobStatus.CANCELLED)
    wandb.key = KEY
    await desk.send()
    (shown,) = wandb.runs.values()
    assert ([row["_step"] for row in shown.rows], shown.state) == ([1, 2], "killed")
    assert len(said(run, "WARNING")) == 1


async def test_what_was_written_offline_is_taken_by_wandbs_own_sync(
    desk: Desk, wandb: SimulatedWandb, tmp_path: Path
) -> None:
    run = desk.begin("wandb", project_name="triage", rank=4, tracking=Tracking(mode="offline", run_name="night"))
    report(run, 1, 2, 3)
    desk.end(run)
    await desk.send()
    assert wandb.trouble.asked == []
    assert tracked(run).state is TrackingState.OFFLINE
    address = desk.settings.platform_urls["wandb"]
    environment = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": address, "HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-m", "wandb", "sync", tracked(run).folder or ""]
    synced = await asyncio.to_thread(
        subprocess.run, command, env=environment, cwd=tmp_path, capture_output=True, timeout=120
    )
    assert synced.returncode == 0, synced.stderr
    (shown,) = wandb.runs.values()
    assert [(row["_step"], row["loss"]) for row in shown.rows] == [(step, 1 / step) for step in (1, 2, 3)]
    assert (shown.name, shown.display_name, shown.project) == (run.job_id[4:], "night", "triage")
    assert (shown.state, shown.summary["job_status"]) == ("finished", "completed")
    assert '"rank":{"value":4}' in shown.config and "hidden" not in shown.config


@pytest.mark.parametrize(("tracker", "key"), [("wandb", KEY), ("comet", GOOD)])
async def test_no_key_is_found_in_what_is_written_said_or_shown_of_processes(
    desk: Desk, tracker: str, key: str
) -> None:
    await desk.connect(tracker, api_key=key)
    run = desk.begin(tracker)
    destination = Destination(
        run_id="abc",
        name="n",
        project="p",
        started_at=0,
        folder=str(run.path / "tracking" / "files"),
        url=desk.settings.platform_urls[tracker],
        credentials={"api_key": key},  # pyright: ignore[reportArgumentType]
    )
    sender = await Sender.start(tracker, sys.executable, run.path / "tracking")
    try:
        await sender.open(destination)
        await sender.log([Row(step=1, time=1.0, metrics={"loss": 1.0})])
        family = [found for one in senders() for found in (one, *one.children(recursive=True))]
        shown = [Path(f"/proc/{one.pid}/{what}").read_bytes() for one in family for what in ("cmdline", "environ")]
    finally:
        await sender.close()
    assert family
    assert not any(key.encode() in some for some in shown)
    assert not any(b"PREFECT" in some for some in shown)
    written = [file for file in desk.settings.data_dir.rglob("*") if file.is_file()]
    assert [file for file in written if key.encode() in file.read_bytes()] == []


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (Reply({}, 503), "answered 503"),
        (Reply({}, 429), "too often"),
        (Reply({}, 403), "refuses the credentials"),
        (Reply(b"<html>"), "something else"),
    ],
)
async def test_a_tracker_in_trouble_is_said_once_and_has_everything_in_the_end(
    desk: Desk, comet: SimulatedComet, trouble: Reply, reason: str
) -> None:
    await desk.connect("comet", api_key=GOOD)
    run = desk.begin("comet", project_name="p")
    report(run, 1, 2, 3, 4)
    comet.trouble.reply = trouble
    for _ in range(2):
        await desk.try_once()
    assert len(said(run, "WARNING")) == 1 and reason in said(run, "WARNING")[0]
    assert Waiting(desk.settings).all()
    comet.trouble.reply = None
    desk.end(run, JobStatus.FAILED)
    await desk.send()
    (shown,) = comet.experiments.values()
    losses = [(one["step"], one["metricValue"]) for one in shown.metrics if one["metricName"] == "loss"]
    assert losses == [(step, 1 / step) for step in (1, 2, 3, 4)]
    assert (shown.running, shown.others["job_status"]) == (False, "failed")
    assert "failed" in shown.tags and f"peft-studio-run-{run.job_id[4:]}" in shown.tags


async def test_comet_has_no_number_twice_although_the_sender_was_killed(desk: Desk, comet: SimulatedComet) -> None:
    await desk.connect("comet", api_key=GOOD)
    run = desk.begin("comet", project_name="p")
    report(run, 1, 2, 3)
    await at_work_until(desk, run, 2)
    report(run, 4)
    desk.end(run)
    await desk.send()
    (shown,) = comet.experiments.values()
    sent = [(one["metricName"], one["step"]) for one in shown.metrics]
    assert len(sent) == len(set(sent))
    assert [step for name, step in sent if name == "loss"] == [1, 2, 3, 4]


async def test_a_tracker_that_was_let_go_of_is_waited_for(desk: Desk, comet: SimulatedComet) -> None:
    run = desk.begin("comet")
    report(run, 1)
    await desk.try_once()
    assert "not connected any more" in said(run, "WARNING")[0]
    await desk.connect("comet", api_key=GOOD)
    desk.end(run)
    await desk.send()
    assert len(comet.experiments) == 1


async def test_tensorboard_has_every_step_once_although_the_sender_was_killed(desk: Desk) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = desk.begin("tensorboard", project_name="triage/../x")
    report(run, 1, 2, 3, 4)
    await at_work_until(desk, run, 3)
    report(run, 5)
    desk.end(run)
    await desk.send()
    folder = Path(tracked(run).folder or "")
    assert folder == desk.settings.data_dir / "tensorboard" / "triage-..-x" / run.job_id
    events = EventAccumulator(str(folder)).Reload()
    assert [(one.step, round(one.value, 3)) for one in events.Scalars("loss")] == [
        *((1, 1.0), (2, 0.5), (3, 0.333), (4, 0.25), (5, 0.2))
    ]
    assert [one.step for one in events.Scalars("eval_loss")] == [4]


async def test_a_job_that_is_gone_is_not_waited_for(desk: Desk) -> None:
    Waiting(desk.settings).add("job_" + "0" * 32)
    await desk.try_once()
    assert Waiting(desk.settings).all() == {}
