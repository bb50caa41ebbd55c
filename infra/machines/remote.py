"""A trainer at work on a rented machine, followed by what it sends; its vendor is asked only now and then."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from infra.credentials import CredentialStore
from infra.machines import meter
from infra.machines.accounts import provider_of
from infra.machines.ledger import Ledger
from infra.machines.meter import Limits
from infra.machines.release import find
from infra.providers.base import MachineState, Rented
from infra.providers.local import STOP_SECONDS
from infra.rendezvous.mirror import Mirror
from infra.rendezvous.work import door_of
from infra.settings import Settings
from peft_studio.errors import (
    BudgetExceeded,
    CredentialRefused,
    MachineLost,
    ResourceUnavailable,
    StudioError,
    TimedOut,
)
from peft_studio.events import LogLevel, now
from peft_studio.machines import MachineReceipt
from peft_studio.remote.assignment import End, Orders
from peft_studio.run_dir import Request, RunDir
from peft_studio.trainer.outcome import DONE, FAILED, FULL

_PATIENCE_SECONDS = 60.0  # with a machine that was told to end
_SILENT_SECONDS = 12.0  # more than two signs of life
_ASK_SILENT_SECONDS = 3.0
_ASK_SECONDS = 60.0  # of one that is heard of: its key may have been revoked


class RemoteAttempt:
    """One rented machine's work; may be taken up by another process at any time."""

    def __init__(
        self,
        receipt: MachineReceipt,
        run: RunDir,
        limits: Limits,
        settings: Settings,
        credentials: CredentialStore,
        say: Callable[[str, LogLevel], None],
    ):
        self._receipt, self._run, self._limits, self._say = receipt, run, limits, say
        self._settings, self._credentials = settings, credentials
        self._door = door_of(settings, receipt.name)
        self._mirror = Mirror(self._door.box, run, receipt.name)
        self._earlier = [one for one in Ledger(settings).of_job(run.job_id) if one.name != receipt.name]
        self._orders: Orders | None = None  # as they lie at the door
        self._wanted: dict[str, object] = {}
        self._looked_at, self._asked_at, self._heard_at = 0.0, time.monotonic(), time.monotonic()
        self._sign = ""
        self._why: StudioError | None = None  # why the machine was told to stop, where that is the job's end
        self._give_up_at = float("inf")
        self._has_warned = self._has_complained = self._is_over = False

    def poll(self) -> int | None:
        """
        Return the trainer's exit code, or None while it works.

        Raises ``MachineLost`` where the machine will not finish, ``BudgetExceeded`` or ``TimedOut`` once it has saved
        what it had, ``CredentialRefused`` where the vendor does not take the key any more.
        """
        if time.monotonic() - self._looked_at < self._door.look_seconds:
            return None
        end = self._pull()
        self._looked_at = time.monotonic()
        if end is not None:
            return self._ended(end)
        if time.monotonic() > self._give_up_at and self._why:
            self._is_over = True
            raise self._why
        self._relay_requests()
        self._read_meter()
        self._order()  # again, where the bucket did not answer
        self._look_after()
        return None

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Have the machine save a checkpoint and end; returns when all of it is here, or after so many seconds."""
        if self._is_over:
            return
        self._order(stop="The studio has asked for it.")
        deadline = time.monotonic() + seconds
        while self._pull() is None and time.monotonic() < deadline:
            time.sleep(self._door.look_seconds)
            self._order()
        self._is_over = True

    def _pull(self) -> End | None:
        """Take what has come; a bucket that does not answer is asked again, and complained of once."""
        try:
            end = self._mirror.pull()
        except ResourceUnavailable as error:
            if not self._has_complained:
                self._say(f"{error.message} It is asked again; the machine works on.", "WARNING")
            self._has_complained = True
            return None
        self._has_complained = False
        return end

    def _ended(self, end: End) -> int:
        self._is_over = True
        if self._why:
            raise self._why
        if end.code not in (DONE, FAILED, FULL):  # it has saved what it had; its own attempts did not help
            why = end.reason or f"its trainer ended with code {end.code}"
            raise MachineLost(f"The machine {self._receipt.name} did not finish: {why}.")
        return end.code

    def _relay_requests(self) -> None:
        """Pass on that a checkpoint is asked for; the request is withdrawn when one has come."""
        newest = max((path.stat().st_mtime for path in self._run.checkpoints.glob("step-*/manifest.json")), default=0.0)
        if not self._run.is_asked(Request.CHECKPOINT):
            return
        if newest >= self._run.ask_time(Request.CHECKPOINT):
            self._run.withdraw(Request.CHECKPOINT)
        else:
            self._order(asked_at=self._run.ask_time(Request.CHECKPOINT))

    def _read_meter(self) -> None:
        reading = meter.read([*self._earlier, self._receipt], self._limits, now())
        if reading.share >= meter.WARN_AT and not self._has_warned:
            self._has_warned = True
            spent = f"${reading.cost:.2f}" + (f" of ${self._limits.cost:.2f}" if self._limits.cost else "")
            self._say(f"{reading.share:.0%} of what the job may take is used up ({spent}).", "WARNING")
        if reading.over and self._why is None:
            self._why = _why(reading, self._limits)
            self._say(f"{self._why.message} A checkpoint is saved, then the machine is given back.", "WARNING")
            self._give_up_at = time.monotonic() + max(_PATIENCE_SECONDS, self._settings.stop_seconds)
            self._order(stop=self._why.message)

    def _look_after(self) -> None:
        """Ask the vendor about a machine that is silent; now and then about any."""
        if self._mirror.sign != self._sign:
            self._sign, self._heard_at = self._mirror.sign, time.monotonic()
        silent = time.monotonic() - self._heard_at
        if time.monotonic() - self._asked_at < (_ASK_SILENT_SECONDS if silent > _SILENT_SECONDS else _ASK_SECONDS):
            return
        self._asked_at = time.monotonic()
        try:
            found = asyncio.run(self._ask())
        except CredentialRefused:
            raise
        except StudioError as error:
            self._say(f"{self._receipt.provider} does not say how the machine is: {error.message}", "WARNING")
            found = None if silent > 60 * self._settings.silence_minutes else _UNKNOWN
        is_dead = found is None or found.state in (MachineState.ENDED, MachineState.LOST)
        if is_dead and self._pull() is None:
            self._is_over = True
            why = found.reason or found.state if found else "it is gone"
            raise MachineLost(f"The machine {self._receipt.name} at {self._receipt.provider} was lost ({why}).")
        if silent > 60 * self._settings.silence_minutes:
            self._is_over = True
            raise MachineLost(f"The machine {self._receipt.name} has not been heard of for {silent / 60:.0f} minutes.")

    async def _ask(self) -> Rented | None:
        provider = await provider_of(self._receipt.provider, self._settings, self._credentials)
        if self._receipt.machine_id is None:
            return await find(provider, self._receipt.name, 0)
        return await provider.machine(self._receipt.machine_id)

    def _order(self, **changes: object) -> None:
        """Want something of the machine, and see to it that its orders say so; where that fails, the next time."""
        self._wanted |= changes
        with suppress(ResourceUnavailable):
            before = self._orders or self._door.orders()
            orders = before.model_copy(update=self._wanted)
            if orders != before:
                self._door.order(orders)
            self._orders = orders


_UNKNOWN = Rented(id="", name="", state=MachineState.RUNNING)


def _why(reading: meter.Reading, limits: Limits) -> StudioError:
    if reading.over == "cost":
        return BudgetExceeded(
            f"The job has cost ${reading.cost:.2f} of the ${limits.cost:.2f} it may cost.",
            issue="Raise max_cost and retry the job: it goes on from its last checkpoint.",
        )
    return TimedOut(
        f"The job has had machines for the {limits.minutes:g} minutes it may have them.",
        issue="Raise max_duration and retry the job: it goes on from its last checkpoint.",
    )
