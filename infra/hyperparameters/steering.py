"""What a sweep's flow run does: start jobs for its points, stop the worst, and keep to its budget."""

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterType,
    FlowRunFilter,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import ArtifactSort

from infra.api_keys import read_records
from infra.budget_reads import flow_runs
from infra.experiments.curves import read_curves
from infra.flow_runs import FLOW, stop
from infra.hyperparameters.halving import Verdicts, judge
from infra.hyperparameters.runs import POINT, point_of, sweep_id_of
from infra.jobs.flow_run_jobs import SWEEP
from infra.jobs.reads import RESULT
from infra.jobs.submission import JobSubmission
from infra.machines.receipts import cost_of, receipts_of
from infra.planning.planner import rented_from
from infra.settings import Settings
from peft_studio.errors import InsufficientCredits, ResourceUnavailable, StudioError
from peft_studio.jobs import job_id_of
from peft_studio.sweeps import SweepPlan

log = logging.getLogger(__name__)
ENDED = (StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED)
REVOKED = "The API key that it was asked for with was revoked."
_PATIENCE_SECONDS = 600.0  # for a point that cannot be started just now
Jobs = Mapping[int, FlowRun]


class Steering:
    """One sweep at work; whatever it needs to know it reads, so that it may be killed at any moment."""

    def __init__(
        self, run_id: UUID, plan: SweepPlan, client: PrefectClient, submission: JobSubmission, settings: Settings
    ):
        self._run_id = run_id
        self._sweep_id = sweep_id_of(run_id)
        self._plan = plan
        self._client = client
        self._submission = submission
        self._settings = settings
        self._verdicts: Verdicts | None = None
        self._stuck_since: float | None = None

    async def step(self) -> bool:
        """Look at all jobs once and do what is to be done; whether all points are settled."""
        jobs = await self.jobs()
        if self._verdicts is None:
            self._verdicts = await self._read()
        if self._plan.early_stopping:
            await self._judge(jobs)
        await self._start(jobs)
        settled = {number for number, run in jobs.items() if run.state_type in ENDED} | self._verdicts.refused.keys()
        return len(settled) == len(self._plan.points)

    async def jobs(self) -> Jobs:
        """Return the runs of the jobs there are, by the numbers of their points."""
        wanted = FlowRunFilter(tags=FlowRunFilterTags(all_=[SWEEP + self._sweep_id]))
        return {point_of(run.tags): run for run in await flow_runs(self._client, FLOW, wanted)}

    async def cancel(self) -> None:
        """Cancel all jobs that have not ended."""
        for run in (await self.jobs()).values():
            await self._stop(run)

    async def _judge(self, jobs: Jobs) -> None:
        """Compare points at the rungs they have newly reached; what is decided is written down before it is done."""
        verdicts, stopping = self._verdicts, self._plan.early_stopping
        assert verdicts is not None and stopping is not None
        found = False
        for number, run in sorted(jobs.items()):
            left = [rung for rung in stopping.rungs if number not in verdicts.rungs.get(rung, {})]
            if not left or run.state_type is StateType.SCHEDULED or number in verdicts.stopped:
                continue
            curve = await asyncio.to_thread(self._curve, job_id_of(run.id), left[0])
            live = run.state_type not in ENDED
            found |= judge(verdicts, number, curve, stopping, self._plan.aim, self._plan.metric, live)
        if found:
            await self._write()
        for number in verdicts.stopped.keys() & jobs.keys():
            await self._stop(jobs[number], verdicts.stopped[number])

    def _curve(self, job_id: str, rung: int) -> dict[int, float]:
        """Read a job's metric by step, once it may have got to a rung."""
        run, metric = self._settings.run_dir(job_id), self._plan.metric
        if run.latest().metrics.get("step", 0) < rung:
            return {}
        curve = read_curves([run], [metric]).get(metric)
        points = zip(curve.steps, curve.values[0], strict=True) if curve else ()
        return {step: value for step, value in points if value is not None}

    async def _start(self, jobs: Jobs) -> None:
        """Start jobs for the next points, as many as may be under way and the budget allows."""
        verdicts = self._verdicts
        assert verdicts is not None
        numbers = range(len(self._plan.points))
        waiting = [number for number in numbers if number not in jobs and number not in verdicts.refused]
        live = {number for number, run in jobs.items() if run.state_type not in ENDED}
        spent = sum(self._claimed(number, run) for number, run in jobs.items())
        refused: dict[int, str] = {}
        if waiting and len(live) < self._plan.parallel and await self._is_revoked():
            refused = dict.fromkeys(waiting, REVOKED)
        for number in waiting:
            if refused or len(live) >= self._plan.parallel:
                break
            hold = self._hold(number)
            if self._plan.budget is not None and spent + hold > self._plan.budget + 1e-9:
                if live:
                    break  # they may cost less than they may
                refused[number] = f"It may cost ${hold:.2f}, and of the sweep's budget ${spent:.2f} are gone."
                break
            if (reason := await self._submit(number, live)) == "":
                live.add(number)
                spent += hold
                continue
            refused |= {number: reason} if reason else {}
            break
        if refused:
            verdicts.refused |= refused
            await self._write()

    async def _submit(self, number: int, live: Collection[int]) -> str | None:
        """Start a point's job; "" where that worked, None where it is to be tried again, else why it gets none."""
        try:
            await self._submission.submit(
                self._plan.config_of(number),
                idempotency_key=f"{self._sweep_id}-{number}",
                key_id=self._plan.key_id,
                tags=[SWEEP + self._sweep_id, f"{POINT}{number}"],
            )
        except (InsufficientCredits, ResourceUnavailable) as error:
            # A budget of the month that does not pay now may when others have ended; a vendor may be back.
            self._stuck_since = self._stuck_since or time.monotonic()
            if live or (
                isinstance(error, ResourceUnavailable) and time.monotonic() - self._stuck_since < _PATIENCE_SECONDS
            ):
                return None
            reason = error.message
        except StudioError as error:
            reason = error.message
        else:
            reason = ""
        self._stuck_since = None
        return reason

    async def _is_revoked(self) -> bool:
        return not await is_live(self._plan.key_id)

    def _hold(self, number: int) -> float:
        """Return what a point may cost at most; the API has seen to it that a sweep with a budget says so."""
        config = self._plan.config_of(number)
        return 0.0 if rented_from(config) is None else config.max_cost or 0.0

    def _claimed(self, number: int, run: FlowRun) -> float:
        """Return what a job takes of the budget: what it has cost, or may cost while it has not ended."""
        hold = self._hold(number)
        if not hold:
            return 0.0
        cost = cost_of(receipts_of(self._settings.run_dir(job_id_of(run.id))))
        if cost is None:
            return hold
        return cost if run.state_type in ENDED else max(hold, cost)

    async def _stop(self, run: FlowRun, why: str | None = None) -> None:
        """Cancel a job, unless it has ended meanwhile."""
        state = (await self._client.read_flow_run(run.id)).state_type
        if state is not None and state not in (*ENDED, StateType.CANCELLING):
            await stop(self._client, run.id, state, *([why] if why else []))

    async def _read(self) -> Verdicts:
        """Read what this sweep has decided so far, in a process before this one."""
        found = await self._client.read_artifacts(
            artifact_filter=ArtifactFilter(
                type=ArtifactFilterType(any_=[RESULT]), flow_run_id=ArtifactFilterFlowRunId(any_=[self._run_id])
            ),
            sort=ArtifactSort.CREATED_DESC,
            limit=1,
        )
        return Verdicts.model_validate(found[0].data) if found else Verdicts()

    async def _write(self) -> None:
        assert self._verdicts is not None
        data = self._verdicts.model_dump(mode="json")
        key = f"{self._sweep_id.replace('_', '-')}-verdicts"
        await self._client.create_artifact(ArtifactCreate(type=RESULT, key=key, data=data, flow_run_id=self._run_id))


async def is_live(key_id: str | None) -> bool:
    """Whether an API key may still spend money; what was asked for without one (in Prefect itself) may."""
    return key_id is None or any(key.id == key_id and key.revoked_at is None for key in await read_records())
