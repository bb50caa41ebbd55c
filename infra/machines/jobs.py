"""One job's machines, as its flow sees them: this machine, or one after another that is rented."""

from infra.credentials import CredentialsInPrefect, CredentialStore
from infra.jobs.limits import limits_of
from infra.jobs.pausing import pause_if_asked
from infra.jobs.record import JobRecord
from infra.machines.base import LOCAL, Attempt, Machine
from infra.machines.candidates import candidates
from infra.machines.meter import Limits
from infra.machines.receipts import cost_of
from infra.machines.remote import RemoteAttempt
from infra.machines.rental import Rental, Wanted
from infra.planning import measured_speeds
from infra.planning.job_plans import trained_before
from infra.providers.local import LocalAttempt
from infra.settings import Settings, settings
from peft_studio.errors import BudgetExceeded, TimedOut
from peft_studio.events import LogLevel
from peft_studio.experiments import project_of
from peft_studio.jobs import TrainingSummary
from peft_studio.machines import MachineReceipt, MachineStatus
from peft_studio.plan import Plan
from peft_studio.run_dir import RunDir

HERE = Machine(provider=LOCAL, resource_id=LOCAL, hourly_rate=0.0)
_DISK_GB = 20  # of the image's own, and for checkpoints


class JobMachines:
    """Gets machines for a job and gives them back."""

    def __init__(
        self, record: JobRecord, of_studio: Settings | None = None, credentials: CredentialStore | None = None
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

        After one was lost any connected provider will do; ``beyond_gb`` asks for GPUs with more memory than that.
        """
        if plan.config.provider == LOCAL or (not plan.config.force and trained_before(plan, self._settings)):
            return HERE  # what was trained before is not trained again, wherever it was
        if (receipt := self._rental.current()) is None:
            receipt = self._rent(plan, beyond_gb)
        rate = receipt.offered_rate if receipt.hourly_rate is None else receipt.hourly_rate
        self._record.say(f"Training on {receipt.resource_id} at {receipt.provider}, ${rate:.4f} an hour.")
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
        earlier = self.receipts
        anywhere = any(one.status is MachineStatus.GONE and one.ready_at for one in earlier)
        offers = candidates(plan, self._settings, self._credentials, anywhere=anywhere, beyond_gb=beyond_gb)
        limits, longest = self._limits(plan), 3600 * self._settings.machine_hours
        left = {one.hourly_rate: limits.seconds_left(earlier, one.hourly_rate, longest) for one in offers}
        affordable = [one for one in offers if left[one.hourly_rate] > limits.reserve_seconds]
        if offers and not affordable:
            _raise_limit(limits, self.cost)
        dearest = max((one.hourly_rate for one in affordable), default=0.0)
        wanted = Wanted(
            plan=plan,
            deadline_seconds=left.get(dearest, longest),
            disk_gb=_DISK_GB + round((4 * plan.model.parameters + 2 * plan.dataset.bytes) / 1e9),
            project=project_of(plan.config),
            key_id=self._record.key_id,
        )
        return self._rental.rent(wanted, affordable)


def _raise_limit(limits: Limits, cost: float | None) -> None:
    if limits.cost is not None and (cost or 0.0) > 0:
        raise BudgetExceeded(
            f"The job has cost ${cost or 0:.2f} of the ${limits.cost:.2f} it may cost: no further machine is rented.",
            issue="Raise max_cost and retry the job: it goes on from its last checkpoint.",
        )
    if limits.cost is not None:
        raise BudgetExceeded("max_cost does not pay for a minute of any machine.", issue="Raise max_cost.")
    raise TimedOut("The job has had machines as long as it may.", issue="Raise max_duration and retry the job.")
