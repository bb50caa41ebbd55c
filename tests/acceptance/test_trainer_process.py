import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from peft_studio.events import Log, Metrics
from peft_studio.run_dir import RunDir
from peft_studio.trainer.outcome import DONE, STOPPED
from peft_studio.trainer.program import run as train
from peft_studio.trainer.stop import StopSignal
from tests.acceptance.trainers import Start, trainers, wait_for_step
from tests.tiny import conversations, make_run, tiny_model, write_rows

pytestmark = pytest.mark.acceptance
torch.set_num_threads(1)  # as in the processes started here: sums depend on how many threads share them
STEPS = 120


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    folder = tmp_path_factory.mktemp("job")
    model, rows = tiny_model(folder / "model"), write_rows(folder / "rows.jsonl", conversations(40))
    job = {"num_epochs": 100, "max_steps": STEPS, "dropout": 0.1, "checkpoint_steps": 10, "validation_split": 0.1}
    run = make_run(folder / "run", model, rows, **job)
    assert train(run, StopSignal()) == DONE
    return run


@pytest.fixture
def run(tmp_path: Path, uninterrupted: RunDir) -> RunDir:
    """The same job, not begun."""
    run = RunDir(tmp_path / "run")
    run.write("config.json", uninterrupted.read_config())
    return run


@pytest.fixture
def start() -> Iterator[Start]:
    with trainers(PEFT_STUDIO_THREADS="1", OMP_NUM_THREADS="1") as start:
        yield start


def curve(run: RunDir) -> list[tuple[float | None, ...]]:
    found = [event.metrics for _, event in run.events() if isinstance(event, Metrics)]
    return [tuple(each.get(name) for name in ("step", "epoch", "loss", "learning_rate", "eval_loss")) for each in found]


def assert_as_if_never_interrupted(run: RunDir, uninterrupted: RunDir) -> None:
    assert curve(run) == curve(uninterrupted)
    ours, theirs = (load_file(each.adapter / "adapter_model.safetensors") for each in (run, uninterrupted))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_trainer_killed_in_the_middle_goes_on_without_gap_or_repetition(
    run: RunDir, uninterrupted: RunDir, start: Start
) -> None:
    process = start(run)
    wait_for_step(run, 34, process)
    process.kill()
    process.wait()
    assert run.read_summary() is None
    assert start(run).wait(90) == DONE, run.log.read_text()
    assert_as_if_never_interrupted(run, uninterrupted)
    summary = run.read_summary()
    assert summary is not None
    [resumed] = summary.resumed_at
    assert resumed >= 30


def test_a_trainer_that_is_terminated_saves_a_checkpoint_and_goes_on_later(
    run: RunDir, uninterrupted: RunDir, start: Start
) -> None:
    process = start(run)
    wait_for_step(run, 12, process)
    process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    assert process.wait(30) == STOPPED, run.log.read_text()
    assert time.monotonic() - asked < 10
    stopped_at = max(int(step or 0) for step, *_ in curve(run))
    assert (run.checkpoints / f"step-{stopped_at}" / "manifest.json").is_file()
    last = [event for _, event in run.events() if isinstance(event, Log)][-1]
    assert last.message == f"Stopped at step {stopped_at}: SIGTERM received"

    tied = start(run, "--tied-to-stdin")
    wait_for_step(run, stopped_at + 2, tied)
    assert tied.stdin is not None
    tied.stdin.close()  # as when the process that started it dies
    assert tied.wait(30) == STOPPED, run.log.read_text()

    assert train(run, StopSignal()) == DONE
    assert_as_if_never_interrupted(run, uninterrupted)
