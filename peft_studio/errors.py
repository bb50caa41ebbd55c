"""
What can go wrong, and what the caller can do about it.

    StudioError
    ├── InvalidConfig            change the request
    ├── AuthenticationFailed     send a valid key
    │   └── CredentialRefused    give the platform's own valid key
    ├── PermissionDenied         ask for a key with the role
    ├── NotFound                 change the address
    │   └── JobNotFound          change the job id
    ├── Conflict                 the job is in a state that does not allow it
    ├── PayloadTooLarge          send less
    ├── RateLimitExceeded        wait
    ├── PlatformNotConnected     connect the platform first
    ├── InsufficientCredits      top up
    │   └── BudgetExceeded       raise max_cost, then retry the job: it goes on from its last checkpoint
    ├── ResourceUnavailable      wait, or choose another machine
    │   └── Unreachable          start the studio, or correct its address
    ├── TrainingFailed           read the job's log
    │   ├── OutOfMemory          lower batch_size or max_length, or quantize
    │   ├── Diverged             lower learning_rate
    │   ├── DiskFull             make room, then retry the job
    │   ├── DeployFailed         see the reason, then retry the job
    │   ├── TimedOut             raise max_duration, then retry the job
    │   ├── ResumeMismatch       retry the job; if it comes again, report it with the job's log
    │   ├── MachineLost          nothing: another machine is rented, training goes on from the last checkpoint
    │   └── TrainerDied          nothing: it is tried again from the last checkpoint
    ├── ExportFailed             see the reason; the adapter itself is as it was
    └── InternalError            report the reference

Each class carries the ``code`` of the wire contract. Its docstring is its default message.
All of them survive pickling, so that they can cross process boundaries.
"""

from typing import Any, ClassVar


class StudioError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "INTERNAL_ERROR"

    def __init__(self, message: str | None = None, /, **details: Any):
        super().__init__(message or (type(self).__doc__ or "").strip())
        self.details = details

    @property
    def message(self) -> str:
        """What went wrong, in one sentence."""
        return str(self.args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.details)


def _rebuild(kind: type[StudioError], message: str, details: dict[str, Any]) -> StudioError:
    return kind(message, **details)


class InvalidConfig(StudioError):
    """Training configuration is invalid."""

    code = "INVALID_CONFIG"

    @classmethod
    def of(cls, field: str, issue: str, **details: Any) -> "InvalidConfig":
        """Return the error of one field, which the message names, too."""
        return cls(f"{field}: {issue}", field=field, issue=issue, **details)


class AuthenticationFailed(StudioError):
    """The API key is missing or not valid."""

    code = "AUTHENTICATION_FAILED"


class CredentialRefused(AuthenticationFailed):
    """The platform refused the credentials."""


class PermissionDenied(StudioError):
    """This API key's role does not allow the request."""

    code = "PERMISSION_DENIED"


class NotFound(StudioError):
    """There is nothing at this address."""

    code = "NOT_FOUND"


class JobNotFound(NotFound):
    """There is no job with this id."""

    code = "JOB_NOT_FOUND"


class Conflict(StudioError):
    """The job's state does not allow this."""

    code = "CONFLICT"


class PayloadTooLarge(StudioError):
    """The request body is too large."""

    code = "PAYLOAD_TOO_LARGE"


class RateLimitExceeded(StudioError):
    """Too many requests with this API key."""

    code = "RATE_LIMIT_EXCEEDED"


class PlatformNotConnected(StudioError):
    """The platform is not connected."""

    code = "PLATFORM_NOT_CONNECTED"


class InsufficientCredits(StudioError):
    """The platform's account has too little credit."""

    code = "INSUFFICIENT_CREDITS"


class BudgetExceeded(InsufficientCredits):
    """The job has cost as much as it may."""

    code = "BUDGET_EXCEEDED"


class ResourceUnavailable(StudioError):
    """The requested resource is not available."""

    code = "RESOURCE_UNAVAILABLE"


class Unreachable(ResourceUnavailable):
    """The studio cannot be reached."""


class TrainingFailed(StudioError):
    """Training failed."""

    code = "TRAINING_FAILED"


class OutOfMemory(TrainingFailed):
    """Out of memory."""

    code = "OUT_OF_MEMORY"


class Diverged(TrainingFailed):
    """Training diverged."""

    code = "DIVERGED"


class DiskFull(TrainingFailed):
    """The disk is full."""

    code = "DISK_FULL"


class DeployFailed(TrainingFailed):
    """The adapter could not be deployed."""

    code = "DEPLOY_FAILED"


class TimedOut(TrainingFailed):
    """The job has taken as long as it may."""

    code = "TIMED_OUT"


class ResumeMismatch(TrainingFailed):
    """Training did not go on where it had stopped."""

    code = "RESUME_MISMATCH"


class MachineLost(TrainingFailed):
    """The rented machine was lost."""

    code = "MACHINE_LOST"


class TrainerDied(TrainingFailed):
    """The trainer process ended without a word."""

    code = "PROCESS_DIED"


class ExportFailed(StudioError):
    """The adapter could not be exported."""

    code = "EXPORT_FAILED"


class InternalError(StudioError):
    """Internal error."""
