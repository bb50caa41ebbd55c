"""The trainer's side of memory.json: the same steps, laid out so that they need less memory at once."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from peft_studio.events import Metrics
from peft_studio.oom_ladder import step_down
from peft_studio.run_dir import RunDir
from peft_studio.trainer.outcome import DONE, STOPPED
from peft_studio.trainer.program import run as train
from peft_studio.trainer.stop import StopSignal
from tests.tiny import make_run
from tests.unit.trainer.stops import StopAtLook

JOB = {"batch_size": 4, "gradient_accumulation_steps": 1, "dropout": 0.0}


def losses(run: RunDir) -> list[float]:
    found = [event.metrics for _, event in run.events() if isinstance(event, Metrics)]
    return [each["loss"] for each in found if "loss" in each]


@pytest.fixture(scope="module")
def as_asked(tmp_path_factory: pytest.TempPathFactory, model: Path, rows: Path) -> RunDir:
    run = make_run(tmp_path_factory.mktemp("runs") / "run", model, rows, **JOB)
    assert train(run, StopSignal()) == DONE
    return run


@pytest.mark.parametrize("rungs", [1, 2, 3])
def test_a_run_on_any_rung_trains_what_was_asked_for(
    rungs: int, tmp_path: Path, model: Path, rows: Path, as_asked: RunDir
) -> None:
    run = make_run(tmp_path / "run", model, rows, **JOB)
    for _ in range(rungs):
        assert step_down(run) is not None
    assert train(run, StopSignal()) == DONE
    assert losses(run) == pytest.approx(losses(as_asked), rel=1e-4)
    ours, theirs = (load_file(one.adapter / "adapter_model.safetensors") for one in (run, as_asked))
    assert all((ours[name] - theirs[name]).abs().max() < 1e-3 for name in theirs)


def test_a_checkpoint_of_one_rung_is_gone_on_from_on_the_next(
    tmp_path: Path, model: Path, rows: Path, as_asked: RunDir
) -> None:
    run = make_run(tmp_path / "run", model, rows, **JOB)
    assert train(run, StopAtLook(7)) == STOPPED
    before = len(losses(run))
    assert 0 < before < len(losses(as_asked))
    step_down(run)
    assert train(run, StopSignal()) == DONE
    summary = run.read_summary()
    assert summary is not None and summary.resumed_at == [before]
    assert losses(run) == pytest.approx(losses(as_asked), rel=1e-4)
