import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from peft_studio.events import Failure, Metrics
from peft_studio.run_dir import RunDir
from peft_studio.trainer.outcome import DONE, FAILED, STOPPED
from peft_studio.trainer.program import run as train
from peft_studio.trainer.stop import StopSignal
from tests.acceptance.trainers import Start, trainers, wait_for_step
from tests.tiny import conversations, make_run, tiny_model, write_rows

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(240),
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="takes two cores"),
]
Make = Callable[..., RunDir]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    model = tiny_model(tmp_path / "model")
    rows = write_rows(tmp_path / "rows.jsonl", conversations(30))

    def make(name: str, **config: object) -> RunDir:
        settings = {"validation_split": 0.1, "dropout": 0.0, "num_processes": 2, "num_epochs": 1}
        return make_run(tmp_path / name, model, rows, **{**settings, **config})

    return make


@pytest.fixture
def start() -> Iterator[Start]:
    with trainers() as start:
        yield start


def trained(run: RunDir) -> RunDir:
    assert train(run, StopSignal()) == DONE, run.read_failure()
    return run


def curve(run: RunDir) -> list[tuple[float, float]]:
    found = [event.metrics for _, event in run.events() if isinstance(event, Metrics)]
    return [(each["step"], each["loss"] if "loss" in each else each["eval_loss"]) for each in found]


def adapter(run: RunDir) -> dict[str, torch.Tensor]:
    return load_file(run.adapter / "adapter_model.safetensors")


def assert_same_but_for_rounding(run: RunDir, alone: RunDir) -> None:
    for point, other in zip(curve(run), curve(alone), strict=True):
        assert point == pytest.approx(other, rel=1e-5)
    for name, weight in adapter(alone).items():
        assert torch.linalg.norm(adapter(run)[name] - weight) < 1e-2 * torch.linalg.norm(weight)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"shard_base": True},
        {"shard_base": True, "algorithm": "qlora", "quantization": "int4", "gradient_checkpointing": True},
    ],
    ids=["whole", "sharded", "sharded-qlora"],
)
def test_two_processes_train_as_one_would(make: Make, settings: dict[str, object]) -> None:
    together = trained(make("together", **settings))
    alone = trained(make("alone", **settings, num_processes=1))
    assert_same_but_for_rounding(together, alone)
    assert "in 2 processes" in "".join(event.model_dump_json() for _, event in together.events())


def test_two_processes_that_are_stopped_leave_a_checkpoint_from_which_one_goes_on(make: Make, start: Start) -> None:
    job = {"num_epochs": 100, "max_steps": 20, "checkpoint_steps": 1000}
    run = make("run", **job)
    process = start(run, "--tied-to-stdin")
    wait_for_step(run, 3, process, 120)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == STOPPED, run.log.read_text()
    assert run.read_failure() is None
    run.write("config.json", run.read_config().model_copy(update={"num_processes": 1}))
    assert_same_but_for_rounding(trained(run), trained(make("alone", **job, num_processes=1)))
    summary = run.read_summary()
    assert summary is not None
    assert summary.resumed_at


def test_when_one_of_two_is_killed_the_other_ends_and_the_job_goes_on_from_its_checkpoint(
    make: Make, start: Start
) -> None:
    job = {"num_epochs": 100, "max_steps": 20, "checkpoint_steps": 2}
    run = make("run", **job)
    process = start(run, "--tied-to-stdin")
    wait_for_step(run, 3, process, 120)
    members = psutil.Process(process.pid).children()
    assert len(members) == 2
    members[1].kill()
    assert process.wait(60) not in (DONE, STOPPED, FAILED)
    assert not [member for member in members if member.is_running()]
    assert_same_but_for_rounding(trained(run), trained(make("alone", **job, num_processes=1)))


def test_when_who_started_them_is_killed_they_end(make: Make, start: Start) -> None:
    run = make("run", num_epochs=1000, checkpoint_steps=1000)
    process = start(run, "--tied-to-stdin")
    wait_for_step(run, 1, process, 120)
    members = psutil.Process(process.pid).children()
    process.kill()
    assert psutil.wait_procs(members, timeout=60)[1] == []


def test_what_all_refuse_is_said_once(make: Make) -> None:
    run = make("run", target_modules=["no_such_layer"])
    assert train(run, StopSignal()) == FAILED
    [failure] = [event for _, event in run.events() if isinstance(event, Failure)]
    assert run.read_failure() == failure
    assert "no_such_layer" in failure.error


def test_more_processes_than_cores_are_refused(make: Make) -> None:
    run = make("run", num_processes=64)
    assert train(run, StopSignal()) == FAILED
    failure = run.read_failure()
    assert failure is not None
    assert failure.details.startswith("num_processes:")
