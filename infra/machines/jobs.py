"""One job's machines, as its flow sees them: this machine, or one after another that is rented."""

from infra.credentials import CredentialsInPrefect, CredentialStore
from infra.jobs.limits import limits_of
from infra.jobs.pausing import pause_if_asked
from infra.jobs.record import JobRecord
from infra.machines.base import LOCAL, Attempt, Machine
from infra.machines.candidates import candidates
from infra.machines.ledger import Ledger
from infra.machines.meter import Limits, affordable, out_of_reach
from infra.machines.receipts import cost_of
from infra.machines.remote import RemoteAttempt
from infra.machines.rental import Rental, Wanted
from infra.planning import measured_speeds
from infra.planning.job_plans import trained_before
from infra.providers.local import LocalAttempt
from infra.settings import Settings, settings
from peft_studio.errors import ResourceUnavailable
from peft_studio.events import LogLevel
from peft_studio.experiments import project_of
from peft_studio.jobs import TrainingSummary
from peft_studio.machines import MachineReceipt
from peft_studio.plan import Plan
from peft_studio.run_dir import RunDir

HERE = Machine(provider=LOCAL, resource_id=LOCAL, hourly_rate=0.0)
_DISK_GB = 20  # of the image's own, and for checkpoints


class JobMachines:
    """Gets machines for a job and gives them back."""

    def __init__(
        self,
        record: JobRecord,
        of_studio: Settings | None = None,
        credentials: CredentialStore | None = None,
        ledger: Ledger | None = None,
    ):
        self._record = record
        self._settings = of_studio or settings()
        self._credentials = credentials or CredentialsInPrefect()
        self._rental = Rental(
            record.job_id,
            self._settings,
            self._credentials,
            say=lambda message: record.say(message, "WARNING"),
            check=lambda: pause_if_asked(record),
            ledger=ledger,
        )

    @property
    def receipts(self) -> list[MachineReceipt]:
        """The receipts of all machines that were ever rented for the job."""
        return list(self._rental.ledger.of_job(self._record.job_id))

    @property
    def cost(self) -> float | None:
        """What they have cost so far, in US dollars; None where that is not known."""
        return cost_of(self.receipts)

    def provision(self, plan: Plan, beyond_gb: float = 0.0) -> Machine:
        """
        Get a machine; a job that has one keeps it.

        After one was lost any connected provider will do, and, where the job has a limit, the usual price in the place
        of a spot price. ``beyond_gb`` asks for GPUs with more memory than that.
        """
        if plan.config.provider == LOCAL or (not plan.config.force and trained_before(plan, self._settings)):
            return HERE  # what was trained before is not trained again, wherever it was
        if (receipt := self._rental.current()) is None:
            receipt = self._rent(plan, beyond_gb)
        rate = receipt.offered_rate if receipt.hourly_rate is None else receipt.hourly_rate
        usual = ", the usual price, as no machine is to be had at a spot price" if _is_dearer(plan, receipt) else ""
        self._record.say(f"Training on {receipt.resource_id} at {receipt.provider}, ${rate:.4f} an hour{usual}.")
        return Machine(
            provider=receipt.provider,
            resource_id=receipt.resource_id,
            hourly_rate=rate,
            name=receipt.name,
            vram_gb=receipt.vram_gb,
        )

    def start(self, machine: Machine, plan: Plan) -> Attempt:
        """Start the trainer, or take up one that is at work on a rented machine."""
        run: RunDir = self._record.run
        receipt = self._rental.ledger.get(machine.name) if machine.is_rented else None
        if receipt is None:
            return LocalAttempt("peft_studio.trainer", run, "--tied-to-stdin")

        def say(message: str, level: LogLevel) -> None:
            self._record.say(message, level)

        return RemoteAttempt(receipt, run, self._limits(plan), self._settings, self._credentials, say)

    def note_loss(self, machine: Machine, why: str) -> None:
        """Put on record that a machine was lost, by which the next one is chosen, whichever process does so."""
        if receipt := self._rental.ledger.get(machine.name):
            self._rental.ledger.change(receipt, lost=True, reason=why)

    def release(self, reason: str) -> None:
        """Give back every machine that the job still has; done twice it does no harm."""
        for receipt in self.receipts:
            if not receipt.status.is_over:
                self._rental.returns.release(receipt, reason)

    def note_speed(self, plan: Plan, summary: TrainingSummary) -> None:
        """Remember how fast the job's machine was, for estimates to come."""
        measured_speeds.note(self._settings, plan, self.receipts, summary)

    def _limits(self, plan: Plan) -> Limits:
        return limits_of(plan, self._record.run, self._settings, self._record.read_tags())

    def _rent(self, plan: Plan, beyond_gb: float) -> MachineReceipt:
        earlier, limits, longest = self.receipts, self._limits(plan), 3600 * self._settings.machine_hours
        lost = any(one.lost for one in earlier)
        offers = candidates(
            plan,
            self._settings,
            self._credentials,
            anywhere=lost or beyond_gb > 0,
            beyond_gb=beyond_gb,
            usual_price=lost and limits.cost is not None,  # or nobody has said how much more it may be
        )
        if not offers and beyond_gb:
            raise ResourceUnavailable(
                f"The job ran out of memory, and no GPU with more than {beyond_gb:g} GB is to be had at the moment.",
                issue="Retry the job later, or have another one take less: quantization int4, a smaller max_length.",
            )
        if not offers and plan.config.spot and lost:
            raise ResourceUnavailable(
                "The job has lost its machine, and none is to be had at a spot price at the moment.",
                issue="Retry the job later, or with max_cost, and it goes on at the usual price if need be.",
            )
        paid = affordable(offers, earlier, limits, longest)
        if offers and not paid:
            raise out_of_reach(limits, earlier)
        wanted = Wanted(
            plan=plan,
            disk_gb=_DISK_GB + round((4 * plan.model.parameters + 2 * plan.dataset.bytes) / 1e9),
            project=project_of(plan.config),
            key_id=self._record.key_id,
        )
        return self._rental.rent(wanted, paid)


def _is_dearer(plan: Plan, receipt: MachineReceipt) -> bool:
    return plan.config.spot and not receipt.spot
