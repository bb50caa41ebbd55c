"""What of a job's events is sent to a tracker, and what a job with a tracker is refused for."""

from pathlib import Path

import pytest

from infra.planning.planner import make_plan
from infra.settings import Settings
from infra.trackers.rows import Rows
from peft_studio.config import TrainingConfig
from peft_studio.errors import InvalidConfig
from peft_studio.events import Metrics
from peft_studio.run_dir import RunDir
from peft_studio.tracking import Tracking


def report(run: RunDir, step: int, **metrics: float) -> None:
    run.append(Metrics(job_id=run.job_id, metrics={"step": step, "total_steps": 9, **metrics}))


def steps(rows: Rows, *, ended: bool = False) -> list[int]:
    taken = rows.take(ended=ended)
    rows.sent = taken[-1].step if taken else rows.sent
    return [row.step for row in taken]


def test_a_step_is_sent_once_a_later_one_is_known_with_all_that_was_measured_at_it(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "job_1")
    rows = Rows(run)
    assert steps(rows) == []
    report(run, 1, loss=1.0)
    assert steps(rows) == []
    report(run, 1, eval_loss=2.0)
    report(run, 2, epoch=0.5)
    (first,) = rows.take(ended=False)
    assert (first.step, first.metrics) == (1, {"loss": 1.0, "eval_loss": 2.0})
    rows.sent = 1
    (second,) = rows.take(ended=True)
    assert (second.step, second.metrics) == (2, {"epoch": 0.5})


def test_steps_that_are_done_again_are_not_sent_again(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "job_1")
    rows = Rows(run)
    for step in (1, 2, 3, 4):
        report(run, step, loss=1 / step)
    assert steps(rows) == [1, 2, 3]
    for step in (2, 3, 4, 5):
        report(run, step, loss=1 / step)
    assert steps(rows) == [4]
    assert steps(Rows(run, after=3), ended=True) == [4, 5]


@pytest.mark.parametrize(
    ("given", "field", "issue"),
    [
        ({"experiment_tracker": "trackio"}, "experiment_tracker", "pip install 'peft-studio[trackio]'"),
        ({"experiment_tracker": "mlflow", "tracking": Tracking(mode="offline")}, "tracking.mode", "use online"),
    ],
)
def test_a_tracker_that_cannot_be_used_is_refused_with_what_to_do(
    tmp_path: Path, given: dict[str, object], field: str, issue: str
) -> None:
    settings = Settings(data_dir=tmp_path, tracker_pythons={"trackio": tmp_path / "no-python"})
    config = TrainingConfig.model_validate({"base_model": "m", "dataset_path": "d", **given})
    with pytest.raises(InvalidConfig) as caught:
        make_plan(config, settings, {"mlflow"})
    assert (caught.value.details["field"], issue in caught.value.message) == (field, True)
