"""Machines as jobs have them: got, worked on, given back."""

from infra.machines.base import LOCAL, Attempt, Machine
from infra.providers.local import LocalAttempt
from peft_studio.errors import PlatformNotConnected
from peft_studio.plan import Plan
from peft_studio.run_dir import RunDir

__all__ = ["LOCAL", "Attempt", "Machine", "release", "rent", "start"]


def rent(plan: Plan, job_id: str) -> Machine:
    """Get a machine for a job; called again for the same job it returns the same machine."""
    if plan.config.provider != LOCAL:
        raise PlatformNotConnected(f"The platform {plan.config.provider!r} is not connected.", field="provider")
    return Machine(provider=LOCAL, resource_id=LOCAL, hourly_rate=0.0)


def start(machine: Machine, run: RunDir) -> Attempt:
    """Start the trainer in the run directory; it takes up where an earlier attempt stopped."""
    return LocalAttempt("peft_studio.trainer", run, "--tied-to-stdin")


def release(machine: Machine) -> float:
    """Give the machine back and return what it cost; done twice it does no harm."""
    return 0.0
