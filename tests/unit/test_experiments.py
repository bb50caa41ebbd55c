"""Experiments side by side: metrics, costs, configurations, and which is best."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from peft_studio.config import TrainingConfig
from peft_studio.errors import InvalidConfig, NotFound
from peft_studio.experiments import Experiment, compare, cost_per_point, experiment_of, job_id_of_experiment
from peft_studio.jobs import Job, JobStatus, Phase, job_id_of

CONFIG: dict[str, Any] = {"base_model": "org/model", "dataset_path": "rows.jsonl"}


def job(number: int = 1, **changes: Any) -> Job:
    config = TrainingConfig.model_validate(CONFIG | changes.pop("config", {}))
    fields: dict[str, Any] = {
        "status": JobStatus.COMPLETED,
        "phase": Phase.DONE,
        "progress": 1.0,
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return Job(job_id=job_id_of(UUID(int=number)), config=config, **fields | changes)


def experiments(*metrics: dict[str, float], **changes: Any) -> list[Experiment]:
    return [experiment_of(job(n, metrics=some, **changes)) for n, some in enumerate(metrics, 1)]


def test_a_job_and_its_experiment_find_each_other_by_arithmetic() -> None:
    recorded = job()
    experiment = experiment_of(recorded)
    assert experiment.id == "exp_" + recorded.job_id.removeprefix("job_")
    assert job_id_of_experiment(experiment.id) == experiment.job_id == recorded.job_id


@pytest.mark.parametrize("name", ["", "job_" + "0" * 32, "0" * 32, "Exp_" + "0" * 32])
def test_what_is_no_experiments_id_is_not_found(name: str) -> None:
    with pytest.raises(NotFound):
        job_id_of_experiment(name)


def test_an_experiment_without_a_project_belongs_to_the_default_one() -> None:
    assert experiment_of(job()).project == "default"
    assert experiment_of(job(config={"project_name": "mine"})).project == "mine"


def test_an_experiment_is_called_as_its_run() -> None:
    assert experiment_of(job()).name == "model lora r8"
    assert experiment_of(job(config={"project_name": "mine", "rank": 4})).name == "mine lora r4"


def test_an_experiment_without_results_shows_that_they_are_to_come() -> None:
    experiment = experiment_of(job(status=JobStatus.RUNNING, metrics={"loss": 0.5}))
    assert experiment.metrics == {"final_loss": None, "best_loss": None, "accuracy": None, "loss": 0.5}


def test_this_machine_costs_nothing_and_what_others_will_cost_is_not_known_yet() -> None:
    assert experiment_of(job()).cost == 0.0
    assert experiment_of(job(config={"provider": "runpod"})).cost is None
    assert experiment_of(job(config={"provider": "runpod"}, cost=2.45)).cost == 2.45


@pytest.mark.parametrize(
    ("cost", "accuracy", "point"),
    [
        (2.45, 0.89, 0.0275),
        (3.20, 0.87, 0.0368),
        (0.0, 0.9, 0.0),
        (0.003, 0.9, 0.0000333),
        (None, 0.9, None),
        (2.45, None, None),
        (2.45, 0.0, None),
    ],
)
def test_a_percentage_point_of_accuracy_costs_its_share(
    cost: float | None, accuracy: float | None, point: float | None
) -> None:
    assert cost_per_point(cost, accuracy) == point


def test_every_metric_of_any_experiment_is_in_the_order_of_the_experiments() -> None:
    compared = compare(experiments({"final_loss": 0.2, "best_loss": 0.1}, {"loss": 0.5, "step": 3}), {})
    assert compared.metrics == {
        "loss": [0.2, 0.5],
        "accuracy": [None, None],
        "final_loss": [0.2, None],
        "best_loss": [0.1, None],
        "step": [None, 3],
    }


def test_a_loss_of_zero_is_a_loss() -> None:
    assert compare(experiments({"final_loss": 0.0, "loss": 9.0}), {}).metrics["loss"] == [0.0]


def test_the_best_has_the_highest_accuracy_where_all_have_one() -> None:
    some = experiments({"final_loss": 0.1, "accuracy": 0.8}, {"final_loss": 0.2, "accuracy": 0.9})
    compared = compare(some, {})
    assert (compared.best_performer, compared.metric, compared.direction) == (some[1].id, "accuracy", "maximize")


@pytest.mark.parametrize("metric", ["f1", "rewards/margins"])
def test_what_objectives_measure_of_what_is_right_is_the_better_the_higher(metric: str) -> None:
    some = experiments({"final_loss": 0.1, metric: 0.8}, {"final_loss": 0.2, metric: 0.9})
    compared = compare(some, {}, metric)
    assert (compared.best_performer, compared.direction) == (some[1].id, "maximize")


def test_the_best_has_the_lowest_loss_where_one_has_no_accuracy() -> None:
    some = experiments({"final_loss": 0.1}, {"final_loss": 0.2, "accuracy": 0.9})
    compared = compare(some, {})
    assert (compared.best_performer, compared.metric, compared.direction) == (some[0].id, "loss", "minimize")


def test_the_best_is_found_by_another_metric_where_that_is_asked_for() -> None:
    some = experiments({"best_loss": 0.3, "tokens_per_second": 9}, {"best_loss": 0.2, "tokens_per_second": 8}, {})
    assert compare(some, {}, "best_loss").best_performer == some[1].id
    assert compare(some, {}, "tokens_per_second").best_performer == some[0].id
    assert compare(some, {}, "best_loss", "maximize").best_performer == some[0].id


def test_of_equals_the_first_is_the_best() -> None:
    some = experiments({"accuracy": 0.9}, {"accuracy": 0.9})
    assert compare(some, {}).best_performer == some[0].id


def test_without_any_results_there_is_no_best() -> None:
    assert compare(experiments({}, {}), {}).best_performer is None


def test_a_number_that_is_none_is_never_the_best() -> None:
    some = experiments({"final_loss": float("nan")}, {"final_loss": 0.3})
    compared = compare(some, {})
    assert compared.metrics["loss"] == [None, 0.3]
    assert compared.best_performer == some[1].id


def test_a_metric_that_none_has_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidConfig) as refused:
        compare(experiments({"final_loss": 0.1}, {}), {}, "bleu")
    assert refused.value.details == {
        "field": "metric",
        "issue": "Must be one of accuracy, best_loss, final_loss, loss",
    }


def test_only_the_fields_that_differ_are_named_with_all_values() -> None:
    some = [experiment_of(job(n, config=config)) for n, config in enumerate([{}, {"rank": 4}, {"rank": 4}], 1)]
    assert compare(some, {}).config_differences == {"rank": [8, 4, 4]}


def test_a_default_is_no_different_from_the_same_value_spelt_out() -> None:
    some = [experiment_of(job(n, config=config)) for n, config in enumerate([{}, {"quantization": "none"}], 1)]
    assert compare(some, {}).config_differences == {}
