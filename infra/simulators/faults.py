"""What can go wrong at a simulated vendor, and when it is to: a list that a test or a rehearsal fills."""

from enum import StrEnum
from threading import Lock

from pydantic import BaseModel, Field


class FaultKind(StrEnum):
    """The troubles that every simulated vendor knows, each in that vendor's own way; of machines, or of deployments."""

    ERROR_AFTER_CREATE = "error_after_create"  # the machine exists, the answer is a 5xx
    TIMEOUT_AFTER_CREATE = "timeout_after_create"  # the machine exists, the answer comes ``value`` seconds late
    NO_CAPACITY = "no_capacity"  # of what was asked for
    STALE_OFFER = "stale_offer"  # it was listed, and is gone
    PREEMPTED = "preempted"  # once the trainer on the machine has reported step ``value``
    REVOKED_KEY = "revoked_key"  # from now on
    OUT_OF_CREDIT = "out_of_credit"  # when the next machine is created
    RATE_LIMIT = "rate_limit"  # the next request is one too many
    SLOW_BOOT = "slow_boot"  # the next machine takes ``value`` seconds
    ENDLESS_BOOT = "endless_boot"  # the next machine never starts
    LIST_LAG = "list_lag"  # the next machine is left out of lists for ``value`` seconds
    PRICE_DRIFT = "price_drift"  # the next machine costs ``value`` times what was listed
    RESTARTED = "restarted"  # the next machine's container is started anew once its command has ended
    FAILS_LOADING = "fails_loading"  # the next deployment of an adapter comes to nothing
    NAME_TAKEN = "name_taken"  # what is created next has a name that is taken, by what nobody is shown


OF_HOSTS = frozenset((FaultKind.FAILS_LOADING, FaultKind.NAME_TAKEN))  # platforms that serve adapters know these only


_WITH_VALUE = frozenset(
    (
        FaultKind.TIMEOUT_AFTER_CREATE,
        FaultKind.PREEMPTED,
        FaultKind.SLOW_BOOT,
        FaultKind.LIST_LAG,
        FaultKind.PRICE_DRIFT,
    )
)


class Fault(BaseModel):
    """One trouble, and how many times it comes."""

    kind: FaultKind
    value: float = 0.0
    times: int = Field(default=1, ge=1)

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """Read ``KIND[:TIMES]``, or ``KIND:VALUE[:TIMES]`` of those that have one; raises ``ValueError``."""
        kind, *numbers = text.split(":")
        if kind not in list(FaultKind):
            raise ValueError(f"There is no fault {kind!r}; use one of {', '.join(FaultKind)}.")
        names = ["value", "times"] if kind in _WITH_VALUE else ["times"]
        if len(numbers) > len(names):
            raise ValueError(f"{text!r} has too many parts; it is {':'.join([kind, *names]).upper()}.")
        given = dict(zip(names, map(float, numbers), strict=False))
        return cls.model_validate({"kind": kind, **given})


class Faults:
    """The troubles still to come; threads may add to them while a simulator runs. What is given is copied."""

    def __init__(self, *faults: Fault):
        self._waiting = [fault.model_copy() for fault in faults]
        self._lock = Lock()

    def add(self, *faults: Fault) -> None:
        """Have more go wrong, after what was added before."""
        with self._lock:
            self._waiting += [fault.model_copy() for fault in faults]

    def take(self, kind: FaultKind) -> Fault | None:
        """Return the next trouble of a kind and count it as come; a key stays revoked."""
        with self._lock:
            for fault in self._waiting:
                if fault.kind is kind:
                    if kind is not FaultKind.REVOKED_KEY:
                        fault.times -= 1
                    self._waiting = [left for left in self._waiting if left.times]
                    return fault
        return None

    def to_come(self, kind: FaultKind) -> int:
        """Return how many troubles of a kind are still to come."""
        with self._lock:
            return sum(fault.times for fault in self._waiting if fault.kind is kind)

    def clear(self) -> None:
        """Have nothing more go wrong."""
        with self._lock:
            self._waiting = []
