"""What the Kubernetes API shows of nodes, Jobs and pods, as far as machines are concerned."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

GPU = "nvidia.com/gpu"
MANAGER = ("app.kubernetes.io/managed-by", "peft-studio")  # the label of what is the studio's
_MEMORY = "nvidia.com/gpu.memory"  # of one GPU, in MiB; a label of nodes, set by NVIDIA's GPU feature discovery
_UNITS = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


class Shown(BaseModel):
    """A part of what the API shows, which leaves out or nulls what is empty."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else given


class Metadata(Shown):
    """What every object has; a part of it."""

    name: str = Field(min_length=1)
    labels: dict[str, str] = {}
    created: datetime | None = Field(default=None, alias="creationTimestamp")


class Said(Shown):
    """Any part of a status that gives a reason."""

    reason: str = ""
    message: str = ""

    @property
    def words(self) -> str:
        """Both, as far as they are given."""
        return ": ".join(part for part in (self.reason, self.message) if part)


class Condition(Said):
    """One thing that is so, is not, or is unknown."""

    type: str
    status: str


class Terminated(Said):
    """That a container's command has ended, and how."""

    exit_code: int = Field(alias="exitCode")


class ContainerState(Shown):
    """What a container waits for, or how it ended; nothing where it runs."""

    waiting: Said | None = None
    terminated: Terminated | None = None


class _Container(Shown):
    state: ContainerState = ContainerState()


class _PodStatus(Said):
    phase: str = ""
    conditions: list[Condition] = []
    containers: list[_Container] = Field(default=[], alias="containerStatuses")


class Pod(Shown):
    """A pod of a Job."""

    metadata: Metadata
    status: _PodStatus = _PodStatus()


class _JobStatus(Shown):
    conditions: list[Condition] = []


class Job(Shown):
    """A Job; ``spec`` as it was asked for."""

    metadata: Metadata
    spec: dict[str, Any] = {}
    status: _JobStatus = _JobStatus()

    @property
    def is_of_interest(self) -> bool:
        """Whether it uses a GPU or is the studio's."""
        containers: list[Any] = self.spec.get("template", {}).get("spec", {}).get("containers") or []
        uses_gpu = any(GPU in ((one.get("resources") or {}).get("limits") or {}) for one in containers)
        return uses_gpu or MANAGER in self.metadata.labels.items()


class _NodeSpec(Shown):
    unschedulable: bool = False


class _NodeStatus(Shown):
    allocatable: dict[str, str] = {}
    conditions: list[Condition] = []


class Node(Shown):
    """A host of the cluster."""

    metadata: Metadata
    spec: _NodeSpec = _NodeSpec()
    status: _NodeStatus = _NodeStatus()

    @property
    def takes_pods(self) -> bool:
        """Whether it is well, and nobody has closed it."""
        is_ready = any(one.type == "Ready" and one.status == "True" for one in self.status.conditions)
        return is_ready and not self.spec.unschedulable

    @property
    def gpus(self) -> int:
        """How many GPUs of NVIDIA pods may use."""
        return int(self.allocatable(GPU))

    @property
    def vram_gb(self) -> float | None:
        """The memory of one of them, where a label tells."""
        said = self.metadata.labels.get(_MEMORY, "")
        return round(int(said) / 1024, 1) if said.isdigit() else None

    def allocatable(self, what: str) -> float:
        """Return how much of a resource pods may use; the API writes quantities like ``7910m`` and ``64Gi``."""
        said = self.status.allocatable.get(what, "0")
        number = said.rstrip("".join(_UNITS))
        return float(number) * _UNITS.get(said[len(number) :], 1)


class Nodes(Shown):
    """All nodes."""

    kind: Literal["NodeList"]
    items: list[Node] = []


class Jobs(Shown):
    """The Jobs of a namespace."""

    kind: Literal["JobList"]
    items: list[Job] = []


class Pods(Shown):
    """Pods of a namespace."""

    kind: Literal["PodList"]
    items: list[Pod] = []


class Events(Shown):
    """What the cluster has noted of its objects, oldest first."""

    kind: Literal["EventList"]
    items: list[Said] = []


class _Cause(Shown):
    field: str = ""
    reason: str = ""


class _Details(Shown):
    causes: list[_Cause] = []


class Status(Shown):
    """What the API answers instead of what it was asked for."""

    kind: Literal["Status"]
    reason: str = ""
    message: str = ""
    details: _Details = _Details()
