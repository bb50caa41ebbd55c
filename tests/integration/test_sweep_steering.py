"""What a sweep's flow run does with its points, step by step, with a Prefect that is a few lists."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.objects import StateType

from infra.hyperparameters.halving import Verdicts
from infra.hyperparameters.runs import point_of
from infra.hyperparameters.steering import Steering
from infra.jobs.submission import JobSubmission
from infra.settings import Settings
from peft_studio.config import TrainingConfig
from peft_studio.errors import InsufficientCredits, StudioError
from peft_studio.events import Metrics
from peft_studio.jobs import job_id_of
from peft_studio.sweeps import SweepPlan
from tests.rented_jobs import config

RUN = UUID(int=7)


@dataclass
class Studio:
    """Where jobs are submitted, and Prefect's record of their runs and of what the sweep decided."""

    folder: Path
    runs: list[SimpleNamespace] = field(default_factory=list)
    decided: list[Any] = field(default_factory=list)
    trouble: StudioError | None = None

    async def submit(
        self, config: TrainingConfig, *, idempotency_key: str, key_id: str | None, tags: list[str]
    ) -> None:
        if self.trouble:
            raise self.trouble
        if any(run.idempotency_key == idempotency_key for run in self.runs):
            return
        run = SimpleNamespace(
            id=uuid4(), tags=tags, state_type=StateType.RUNNING, config=config, idempotency_key=idempotency_key
        )
        self.runs.append(run)

    async def read_flow_runs(self, **_: Any) -> Sequence[SimpleNamespace]:
        return [*self.runs]

    async def read_flow_run(self, run_id: UUID) -> SimpleNamespace:
        return next(run for run in self.runs if run.id == run_id)

    async def set_flow_run_state(self, run_id: UUID, state: Any, force: bool = False) -> None:
        (await self.read_flow_run(run_id)).state_type = state.type

    async def read_artifacts(self, **_: Any) -> Sequence[SimpleNamespace]:
        return [SimpleNamespace(data=data) for data in self.decided[-1:]]

    async def create_artifact(self, artifact: ArtifactCreate) -> None:
        self.decided.append(artifact.data)

    def step(self, plan: SweepPlan) -> bool:
        """Have the sweep look around once, in a process of its own each time: nothing is remembered but records."""
        return asyncio.run(self._steering(plan).step())

    def cancel(self, plan: SweepPlan) -> None:
        asyncio.run(self._steering(plan).cancel())

    def _steering(self, plan: SweepPlan) -> Steering:
        client, submission = cast(PrefectClient, self), cast(JobSubmission, self)
        return Steering(RUN, plan, client, submission, Settings(data_dir=self.folder))

    def end(self, number: int, state: StateType = StateType.COMPLETED) -> None:
        self.job(number).state_type = state

    def job(self, number: int) -> SimpleNamespace:
        return next(run for run in self.runs if point_of(run.tags) == number)

    def report(self, number: int, step: int, loss: float) -> None:
        job_id = job_id_of(self.job(number).id)
        run = Settings(data_dir=self.folder).run_dir(job_id)
        run.append(Metrics(job_id=job_id, metrics={"step": step, "loss": loss, "eval_loss": loss}))

    @property
    def numbers(self) -> list[int]:
        return [point_of(run.tags) for run in self.runs]

    @property
    def verdicts(self) -> Verdicts:
        return Verdicts.model_validate(self.decided[-1])


def plan(points: Sequence[dict[str, Any]], provider: str = "local", **changes: Any) -> SweepPlan:
    return SweepPlan.model_validate({"config": config(provider=provider), "points": list(points)} | changes)


RANKS = [{"rank": rank} for rank in (2, 4, 8)]


def test_as_many_jobs_are_under_way_as_may_be_each_with_the_sweeps_tag(tmp_path: Path) -> None:
    studio, sweep = Studio(tmp_path), plan(RANKS, parallel=2)
    assert not studio.step(sweep) and studio.numbers == [0, 1]
    assert not studio.step(sweep) and studio.numbers == [0, 1]
    studio.end(0)
    assert not studio.step(sweep) and studio.numbers == [0, 1, 2]
    studio.end(1, StateType.FAILED)
    studio.end(2)
    assert studio.step(sweep)
    assert [run.config.rank for run in studio.runs] == [2, 4, 8]
    assert all(f"sweep:sweep_{RUN.hex}" in run.tags for run in studio.runs)


def test_the_worst_is_stopped_and_others_go_on(tmp_path: Path) -> None:
    studio = Studio(tmp_path)
    sweep = plan(RANKS, parallel=3, early_stopping={"rungs": [5, 10], "reduction_factor": 2})
    studio.step(sweep)
    studio.report(0, 5, 2.0)
    studio.report(1, 5, 3.0)
    studio.step(sweep)
    assert [studio.job(number).state_type for number in (0, 1, 2)] == [
        StateType.RUNNING,
        StateType.CANCELLING,
        StateType.RUNNING,
    ]
    assert studio.verdicts.rungs == {5: {0: 2.0, 1: 3.0}}
    studio.report(2, 6, 1.0)
    studio.step(sweep)
    assert studio.job(2).state_type is StateType.RUNNING
    assert studio.verdicts.stopped.keys() == {1}


def test_what_was_decided_and_not_yet_done_is_done_by_the_next_process(tmp_path: Path) -> None:
    studio, sweep = Studio(tmp_path), plan(RANKS, parallel=3, early_stopping={"rungs": [5]})
    studio.step(sweep)
    studio.decided.append(Verdicts(rungs={5: {0: 1.0, 1: 2.0}}, stopped={1: "Worse."}).model_dump(mode="json"))
    studio.step(sweep)
    assert studio.job(1).state_type is StateType.CANCELLING and len(studio.decided) == 1


def test_what_jobs_may_cost_stays_within_the_budget(tmp_path: Path) -> None:
    studio = Studio(tmp_path)
    sweep = plan([{"rank": rank, "max_cost": 4} for rank in (2, 4, 8)], provider="runpod", parallel=3, budget=10)
    studio.step(sweep)
    assert studio.numbers == [0, 1]  # a third one could make it 12
    assert studio.decided == []  # they may cost less than they may
    studio.end(0)  # it has rented nothing
    studio.step(sweep)
    assert studio.numbers == [0, 1, 2]


def test_a_point_that_the_budget_never_pays_for_is_refused_and_the_sweep_ends(tmp_path: Path) -> None:
    studio = Studio(tmp_path)
    sweep = plan([{"rank": 2, "max_cost": 4}, {"rank": 4, "max_cost": 11}], provider="runpod", parallel=2, budget=10)
    assert not studio.step(sweep)
    studio.end(0)
    assert studio.step(sweep)
    assert studio.verdicts.refused == {1: "It may cost $11.00, and of the sweep's budget $0.00 are gone."}


def test_what_a_months_budget_does_not_pay_for_waits_for_others_to_end(tmp_path: Path) -> None:
    studio, sweep = Studio(tmp_path), plan(RANKS[:2], parallel=2)
    studio.step(plan(RANKS[:1]))
    studio.trouble = InsufficientCredits("The month's budget is gone.")
    assert not studio.step(sweep) and studio.decided == []
    studio.end(0)
    assert studio.step(sweep)
    assert studio.verdicts.refused == {1: "The month's budget is gone."}


def test_cancelling_a_sweep_cancels_what_has_not_ended(tmp_path: Path) -> None:
    studio, sweep = Studio(tmp_path), plan(RANKS, parallel=3)
    studio.step(sweep)
    studio.end(0)
    studio.job(1).state_type = StateType.SCHEDULED
    studio.cancel(sweep)
    assert [studio.job(number).state_type for number in (0, 1, 2)] == [
        StateType.COMPLETED,
        StateType.CANCELLED,
        StateType.CANCELLING,
    ]
