"""What a job may cost and how long it may have machines: by its configuration, by its retries, by its budgets."""

from collections.abc import Sequence

from infra.machines.meter import Limits
from infra.machines.receipts import cost_of, receipts_of
from infra.settings import Settings
from peft_studio.placement import RaisedLimits
from peft_studio.plan import Plan
from peft_studio.run_dir import RunDir

FILE = "limits.json"  # in the run directory, once a job was tried again with others
CAP_TAG = "cap:"  # tag of a flow run that a budget pays for: what is held is then the most it may cost


def limits_of(plan: Plan, run: RunDir, settings: Settings, tags: Sequence[str] = ()) -> Limits:
    """Return the limits in force; ``tags`` are those of the job's flow run."""
    raised = run.read(FILE, RaisedLimits) or RaisedLimits()
    costs = [raised.max_cost or plan.config.max_cost, cap_of(tags)]
    return Limits(
        cost=min((cost for cost in costs if cost is not None), default=None),
        minutes=raised.max_duration or plan.config.max_duration,
        reserve_seconds=settings.stop_seconds,
    )


def cap_of(tags: Sequence[str]) -> float | None:
    """Return what budgets let a flow run cost, where some pay for it."""
    return next((float(tag.removeprefix(CAP_TAG)) for tag in tags if tag.startswith(CAP_TAG)), None)


def wanted_again(plan: Plan, run: RunDir, raised: RaisedLimits | None = None) -> float | None:
    """
    Return what a job may cost in all that is tried again: as it is told to, else what it has, and an estimate.

    Where it is told nothing now, what it was told when it was tried again before is in force.
    """
    told = raised if raised and raised != RaisedLimits() else run.read(FILE, RaisedLimits) or RaisedLimits()
    if limit := told.max_cost or plan.config.max_cost:
        return limit
    spent = cost_of(receipts_of(run))
    return None if plan.estimate is None or spent is None else spent + plan.estimate.cost.high
