"""Sweeps, for the API: checked before anything is started, and told with all their points."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.experiments.curves import read_curves
from infra.experiments.records import Experiments
from infra.hyperparameters.halving import best_of
from infra.hyperparameters.points import at, distinct, points_of
from infra.hyperparameters.runs import SweepRun, SweepRuns
from infra.planning.facts import Facts
from infra.planning.job_plans import JobPlans
from infra.planning.planner import rented_from
from infra.settings import Settings
from peft_studio.config import TrainingConfig
from peft_studio.errors import Conflict, InvalidConfig, StudioError
from peft_studio.experiments import Comparison, experiment_id_of, last_loss
from peft_studio.jobs import Job, JobStatus
from peft_studio.plan import Plan
from peft_studio.sweeps import Changes, PointStatus, Sweep, SweepConfig, SweepPlan, SweepPoint, SweepSummary

_WHILE_TRAINING = ("loss", "eval_")  # how metrics begin that are reported before training has ended


@dataclass(frozen=True)
class SweepPage:
    """Some sweeps, newest first, and where the next page begins."""

    sweeps: list[SweepSummary]
    next_cursor: str | None


class Sweeps:
    """Starts sweeps, and reads how they fare."""

    def __init__(self, runs: SweepRuns, plans: JobPlans, experiments: Experiments, settings: Settings):
        self._runs = runs
        self._plans = plans
        self._experiments = experiments
        self._settings = settings

    async def create(self, sweep: SweepConfig, key_id: str | None, idempotency_key: str | None = None) -> Sweep:
        """Check every point, and start the sweep; raises what is wrong, with ``points[3].rank`` as its field."""
        points, configs = distinct(sweep.config, laid_out := points_of(sweep, self._settings.sweep_points))
        _check_metric(sweep, configs)
        points = await self._paid(sweep, points, configs)
        aims: dict[str, Any] = {
            name: getattr(sweep, name) for name in sweep.model_fields_set & SweepPlan.model_fields.keys() - {"points"}
        }
        plan = SweepPlan(**aims, points=points, duplicates=len(laid_out) - len(points), key_id=key_id)
        return self._told(await self._runs.create(plan, idempotency_key), {})

    async def get(self, sweep_id: str) -> Sweep:
        """Return a sweep with all its points; raises ``NotFound``."""
        run = await self._runs.get(sweep_id)
        jobs = await self._runs.jobs(sweep_id)
        return await asyncio.to_thread(self._told, run, jobs)

    async def page(self, limit: int = 20, cursor: str | None = None) -> SweepPage:
        """Return sweeps, newest first, those behind the page that gave the ``cursor``."""
        found = await self._runs.page(limit + 1, cursor)
        shown = [_summary(run) for run in found[:limit]]
        return SweepPage(shown, shown[-1].sweep_id if len(found) > limit else None)

    async def cancel(self, sweep_id: str) -> SweepSummary:
        """Cancel a sweep and its jobs; raises ``Conflict`` where it has ended."""
        return _summary(await self._runs.cancel(sweep_id))

    async def compare(self, sweep_id: str) -> Comparison:
        """Put the points that have jobs side by side, as experiments; raises ``Conflict`` while they are too few."""
        run = await self._runs.get(sweep_id)
        jobs = await self._runs.jobs(sweep_id)
        if len(jobs) < 2:
            raise Conflict("Less than two points of the sweep have jobs so far; look again later.", sweep_id=sweep_id)
        ids = [experiment_id_of(jobs[number].job_id) for number in sorted(jobs)]
        metric, aim = run.plan.metric, run.plan.aim
        known = any(_final(job, metric) is not None for job in jobs.values())
        return await self._experiments.compare(ids, metric if known else None, aim if known else None)

    async def _paid(
        self, sweep: SweepConfig, points: Sequence[Changes], configs: Sequence[TrainingConfig]
    ) -> list[Changes]:
        """Check each point as submitting it would; with a budget, say of each rented one what it may cost at most."""
        facts, paid = Facts(self._settings), list[Changes]()
        for place, (changes, config) in enumerate(zip(points, configs, strict=True)):
            try:
                plan = (await self._plans.plan(config, facts)).plan
            except StudioError as error:
                field = error.details.get("field")
                if isinstance(error, InvalidConfig) and field in changes:
                    error.details["field"] = at(place, str(field))
                raise
            limit = _limit(sweep, plan, place)
            paid.append(dict(changes) if limit is None else {**changes, "max_cost": limit})
        return paid

    def _told(self, run: SweepRun, jobs: Mapping[int, Job]) -> Sweep:
        plan = run.plan
        points = [self._point(run, number, jobs.get(number)) for number in range(len(plan.points))]
        spent = [0.0 if point.job_id is None else point.cost for point in points]
        known = [cost for cost in spent if cost is not None]
        ranked = [
            (point.number, point.value) for point in points if point.status in _RANKED and point.value is not None
        ]
        return Sweep(
            sweep_id=run.sweep_id,
            name=plan.name,
            status=run.status,
            created_at=run.created_at,
            started_at=run.started_at,
            completed_at=run.completed_at,
            config=plan.config,
            metric=plan.metric,
            direction=plan.aim,
            parallel=plan.parallel,
            budget=plan.budget,
            early_stopping=plan.early_stopping,
            duplicates=plan.duplicates,
            points=points,
            best=best_of(ranked, plan.aim),
            cost=round(sum(known), 4) if len(known) == len(spent) else None,
            message=run.message,
        )

    def _point(self, run: SweepRun, number: int, job: Job | None) -> SweepPoint:
        verdicts, changes = run.verdicts, run.plan.points[number]
        reason = verdicts.stopped.get(number) or verdicts.refused.get(number)
        if job is None:
            status = PointStatus.REFUSED if number in verdicts.refused else PointStatus.WAITING
            status = PointStatus.CANCELLED if status is PointStatus.WAITING and run.status.is_final else status
            return SweepPoint(number=number, changes=changes, status=status, reason=reason)
        is_stopped = number in verdicts.stopped and job.status is JobStatus.CANCELLED
        return SweepPoint(
            number=number,
            changes=changes,
            status=PointStatus.STOPPED if is_stopped else PointStatus(job.status.value),
            job_id=job.job_id,
            experiment_id=experiment_id_of(job.job_id),
            progress=job.progress,
            value=self._value(job, run.plan.metric),
            rungs=verdicts.values_of(number),
            cost=job.cost if job.cost is not None else (0.0 if rented_from(job.config) is None else None),
            reason=reason or (str(job.error.get("error", "")) or None if job.error else None),
        )

    def _value(self, job: Job, metric: str) -> float | None:
        """Return the metric of a job as it is so far: of one that trains, the last that it has reported."""
        if (value := _final(job, metric)) is not None:
            return value
        curve = read_curves([self._settings.run_dir(job.reused_from or job.job_id)], [metric]).get(metric)
        return next((one for one in reversed(curve.values[0]) if one is not None), None) if curve else None


_RANKED = (PointStatus.PENDING, PointStatus.RUNNING, PointStatus.COMPLETED)


def _final(job: Job, metric: str) -> float | None:
    return last_loss(job.metrics) if metric == "loss" else job.metrics.get(metric)


def _check_metric(sweep: SweepConfig, configs: Sequence[TrainingConfig]) -> None:
    """Refuse a metric that some point never has, or has too late for early stopping."""
    if sweep.metric.startswith("eval_") and any(config.validation_split == 0 for config in configs):
        issue = "there are no held-out rows where validation_split is 0; compare by loss"
        raise InvalidConfig.of("metric", issue)
    if sweep.early_stopping and not sweep.metric.startswith(_WHILE_TRAINING):
        issue = "it is only known at the end, and early stopping looks earlier: use loss, eval_loss or another eval_…"
        raise InvalidConfig.of("metric", issue)


def _limit(sweep: SweepConfig, plan: Plan, place: int) -> float | None:
    """Return what a point may cost at most where the sweep has a budget: what it holds of it; None where nothing."""
    if sweep.budget is None or rented_from(plan.config) is None:
        return None
    limit = plan.config.max_cost or (plan.estimate.cost.high if plan.estimate else None)
    if limit is None:
        issue = "nobody knows what the job will cost, and the sweep has a budget; say how much it may cost"
        raise InvalidConfig.of(at(place, "max_cost"), issue)
    if limit > sweep.budget:
        issue = f"${limit:.2f} for the point {place} alone is more than the whole budget of ${sweep.budget:.2f}"
        raise InvalidConfig.of("budget", issue)
    return limit


def _summary(run: SweepRun) -> SweepSummary:
    return SweepSummary(
        sweep_id=run.sweep_id,
        name=run.plan.name,
        status=run.status,
        created_at=run.created_at,
        completed_at=run.completed_at,
        metric=run.plan.metric,
        direction=run.plan.aim,
        points=len(run.plan.points),
        message=run.message,
    )
