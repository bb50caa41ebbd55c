"""Renting a machine for a job: one at a time, written down first, looked up where the answer was lost."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from infra.credentials import CredentialStore
from infra.machines.accounts import provider_of
from infra.machines.ledger import Ledger, studio_id
from infra.machines.meter import Affordable
from infra.machines.release import LOST_ANSWER_SECONDS, Returns, find, may_yet_appear
from infra.providers.base import MachineState, NoCapacity, Order, Provider, Rented, Unclear
from infra.rendezvous.door import hub_secrets
from infra.rendezvous.work import Terms, door_of, forget_work, heard_of, leave_work
from infra.settings import Settings
from peft_studio.errors import InsufficientCredits, ResourceUnavailable, StudioError
from peft_studio.events import now
from peft_studio.machine_names import machine_name
from peft_studio.machines import MachineReceipt, MachineStatus
from peft_studio.plan import Plan
from peft_studio.remote import CLAIM_VARIABLE

COMMAND = ("python", "-m", "peft_studio.remote")
_ASK_SECONDS = 5.0
_DEAD = (MachineState.ENDED, MachineState.LOST)


@dataclass(frozen=True)
class Wanted:
    """What a job wants a machine for."""

    plan: Plan
    disk_gb: int
    project: str | None = None
    key_id: str | None = None


class Rental:
    """One job's machines; to be used from outside an event loop, by one process at a time."""

    def __init__(
        self,
        job_id: str,
        settings: Settings,
        credentials: CredentialStore,
        say: Callable[[str], None],
        check: Callable[[], None],
        ledger: Ledger | None = None,
        lost_answer_seconds: float = LOST_ANSWER_SECONDS,
    ):
        """``say`` tells the user something; ``check`` raises where nobody wants a machine any more."""
        self._lost_answer_seconds = lost_answer_seconds
        self._job_id, self._settings, self._credentials = job_id, settings, credentials
        self._say, self._check = say, check
        self.ledger = ledger or Ledger(settings)
        self.returns = Returns(settings, self.ledger, credentials)

    def current(self) -> MachineReceipt | None:
        """Return the machine that the job has and can work on; whatever else it had is given back first."""
        usable: MachineReceipt | None = None
        for receipt in self.ledger.of_job(self._job_id):
            if receipt.status.is_over:
                continue
            heard = heard_of(self._settings, receipt.name)
            has_ended = heard is not None and heard.has_ended  # what it has sent is of use, though it may be gone
            # The process that has asked for it may have been killed before its vendor had answered.
            found = asyncio.run(self._look(receipt, 0 if has_ended else may_yet_appear(receipt)))
            is_dead = (found is None or found.state in _DEAD) and not has_ended
            if is_dead and receipt.status is MachineStatus.READY:
                why = (found.reason or found.state) if found else "it is gone"
                receipt = self.ledger.change(receipt, lost=True, reason=f"It was lost while nobody looked ({why}).")
            if is_dead or receipt.released_at is not None or usable:
                self.returns.release(receipt, "The job had no more use for it.")
            else:
                usable = self._adopt(receipt, found)
        if usable is None or usable.status is MachineStatus.READY:
            return usable
        return self._await_ready(usable)

    def rent(self, wanted: Wanted, offers: Sequence[Affordable]) -> MachineReceipt:
        """
        Rent the first of some offers that can be had, and return its receipt once the machine has reported.

        Each machine ends by itself after the seconds that are paid for at its own price.

        Raises what kept the last of them: ``ResourceUnavailable``, ``InsufficientCredits`` ...
        """
        issue: StudioError = ResourceUnavailable("No machine that fits is to be had at the moment.")
        poor: set[str] = set()
        for one in offers:
            offer = one.offer
            if offer.provider in poor:
                continue
            self._check()
            try:
                receipt = self._order(wanted, one)
            except InsufficientCredits as error:
                poor.add(offer.provider)
                issue = error
                continue
            except NoCapacity as error:
                self._say(f"{offer.provider} has no {offer.resource_id} at the moment.")
                issue = error
                continue
            if receipt and (ready := self._await_ready(receipt)):
                return ready
        raise issue

    def _order(self, wanted: Wanted, chosen: Affordable) -> MachineReceipt | None:
        """Have the vendor create a machine; None where it is not known whether it did, or where it does not start."""
        offer = chosen.offer
        earlier = self.ledger.of_job(self._job_id)
        if sum(one.status is not MachineStatus.NEVER for one in earlier) >= self._settings.machines_per_job:
            raise ResourceUnavailable(
                f"The job has used up {self._settings.machines_per_job} machines; no further one is rented.",
                issue="Raise PEFT_STUDIO_MACHINES_PER_JOB and retry the job: it goes on from its last checkpoint.",
            )
        receipt = MachineReceipt(
            name=machine_name(studio_id(self._settings), self._job_id, len(earlier) + 1),
            provider=offer.provider,
            resource_id=offer.resource_id,
            job_id=self._job_id,
            attempt=len(earlier) + 1,
            status=MachineStatus.INTENDED,
            spot=offer.spot,
            vram_gb=offer.vram_gb,
            offered_rate=offer.hourly_rate,
            billing_increment=offer.billing_increment,
            intended_at=now(),
            project=wanted.project,
            key_id=wanted.key_id,
        )
        self.ledger.write(receipt)
        try:
            rented = asyncio.run(self._create(wanted, chosen, receipt))
        except Unclear as error:
            self._say(f"{offer.provider} did not say whether it has created a machine ({error.message})")
            rented = asyncio.run(self._look(receipt, self._lost_answer_seconds))
            if rented is None:
                self._let_go(receipt)
                return None
        except StudioError as error:
            forget_work(self._settings, receipt.name)
            self.ledger.change(receipt, status=MachineStatus.NEVER, reason=error.message, cost=0.0)
            raise
        receipt = self._adopt(receipt, rented)
        if rented.state in _DEAD:
            self._give_back(receipt, f"It was never started ({rented.reason}).")
            return None
        return receipt

    async def _create(self, wanted: Wanted, chosen: Affordable, receipt: MachineReceipt) -> Rented:
        provider = await self._provider(receipt.provider)
        hub = await hub_secrets(self._credentials) if self._settings.bucket else {}
        terms = Terms(60 * self._settings.boot_minutes, chosen.seconds)
        claim = await asyncio.to_thread(leave_work, wanted.plan, receipt.name, terms, self._settings, hub)
        release = provider.self_release
        order = Order(
            name=receipt.name,
            image=self._settings.trainer_image,
            command=COMMAND,
            environment={CLAIM_VARIABLE: claim, **(release.as_environment() if release else {})},
            disk_gb=wanted.disk_gb,
            max_seconds=int(chosen.seconds + terms.boot_seconds + self._settings.stop_seconds),
        )
        return await provider.rent(chosen.offer, order)

    def _adopt(self, receipt: MachineReceipt, rented: Rented | None) -> MachineReceipt:
        """Note that there is a machine; None stands for one that has done its work and is gone."""
        if receipt.status is not MachineStatus.INTENDED:
            return receipt
        return self.ledger.change(
            receipt,
            status=MachineStatus.RENTED,
            machine_id=rented.id if rented else None,
            rented_at=(rented and rented.created_at) or receipt.intended_at,
        )

    def _await_ready(self, receipt: MachineReceipt) -> MachineReceipt | None:
        """Wait until the machine has reported; one that does not is given back, and None returned."""
        door = door_of(self._settings, receipt.name)
        deadline, asked = time.monotonic() + 60 * self._settings.boot_minutes, time.monotonic()
        reason = f"It did not report within {self._settings.boot_minutes:g} minutes."
        while time.monotonic() < deadline:
            self._check()
            if door.is_claimed:
                door.admitted()
                return self._ready(receipt)
            if time.monotonic() - asked > _ASK_SECONDS:
                asked = time.monotonic()
                found = asyncio.run(self._look(receipt))
                if (found is None or found.state in _DEAD) and not door.is_claimed:
                    reason = f"It ended before it had reported ({found.reason if found else 'it is gone'})."
                    break
            time.sleep(door.look_seconds)
        self._give_back(receipt, reason)
        return None

    def _let_go(self, receipt: MachineReceipt) -> None:
        """Want nothing more of a machine that may yet show up: it finds no work then, and the sweep ends it."""
        with suppress(ResourceUnavailable):
            door_of(self._settings, receipt.name).shut()
        why = "Its vendor's answer was lost, and its list does not show it."
        self.ledger.change(receipt, status=MachineStatus.RELEASING, released_at=now(), reason=why)

    def _give_back(self, receipt: MachineReceipt, reason: str) -> None:
        self._say(f"The machine {receipt.name} is given back: {reason}")
        self.returns.release(receipt, reason)

    def _ready(self, receipt: MachineReceipt) -> MachineReceipt:
        """Note that the machine works, and what it really costs."""
        found = asyncio.run(self._look(receipt))
        rate = found.hourly_rate if found else None
        if rate is not None and rate > 1.001 * receipt.offered_rate:
            self._say(
                f"{receipt.provider} takes ${rate:.4f} an hour, not ${receipt.offered_rate:.4f} as it was listed."
            )
        return self.ledger.change(receipt, status=MachineStatus.READY, ready_at=now(), hourly_rate=rate)

    async def _provider(self, platform: str) -> Provider:
        return await provider_of(platform, self._settings, self._credentials)

    async def _look(self, receipt: MachineReceipt, seconds: float = 0) -> Rented | None:
        provider = await self._provider(receipt.provider)
        if receipt.machine_id is not None:
            return await provider.machine(receipt.machine_id)
        return await find(provider, receipt.name, seconds)
