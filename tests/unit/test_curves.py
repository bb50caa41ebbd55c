"""Metrics of several jobs by step, from their run directories."""

from pathlib import Path

from infra.experiments.curves import MOST_STEPS, read_curves
from peft_studio.events import Log, Metrics
from peft_studio.run_dir import RunDir


def run(path: Path, *metrics: dict[str, float]) -> RunDir:
    directory = RunDir(path)
    for some in metrics:
        directory.append(Metrics(job_id=path.name, metrics=some))
    return directory


def test_values_stand_at_their_steps_and_null_where_a_run_has_none(tmp_path: Path) -> None:
    first = run(tmp_path / "a", {"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 2, "eval_loss": 2.5})
    second = run(tmp_path / "b", {"step": 2, "loss": 1.0}, {"step": 3, "loss": 0.5})
    curves = read_curves([first, second], ["loss", "eval_loss"])
    assert curves["loss"].steps == [1, 2, 3]
    assert curves["loss"].values == [[3.0, 2.0, None], [None, 1.0, 0.5]]
    assert (curves["eval_loss"].steps, curves["eval_loss"].values) == ([2], [[2.5], [None]])


def test_a_step_that_was_done_again_counts_as_it_was_done_last(tmp_path: Path) -> None:
    again = run(tmp_path / "a", {"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 1, "loss": 2.9})
    assert read_curves([again], ["loss"])["loss"].values == [[2.9, 2.0]]


def test_runs_that_have_said_nothing_have_no_curve(tmp_path: Path) -> None:
    silent = run(tmp_path / "b")
    silent.append(Log(job_id="b", message="hello"))
    assert read_curves([RunDir(tmp_path / "nowhere"), silent], ["loss"]) == {}


def test_a_long_curve_is_thinned_and_keeps_its_ends(tmp_path: Path) -> None:
    steps = 3 * MOST_STEPS + 7
    long = run(tmp_path / "a", *({"step": step, "loss": 1 / step} for step in range(1, steps + 1)))
    curve = read_curves([long], ["loss"])["loss"]
    assert len(curve.steps) == len(set(curve.steps)) == MOST_STEPS
    assert (curve.steps[0], curve.steps[-1]) == (1, steps)
    assert curve.values == [[1 / step for step in curve.steps]]
