"""A Kubernetes Job as it is asked for, and what it and its pod say of the machine they are."""

from collections.abc import Sequence
from typing import Any

from infra.providers.base import MachineState, Order, Rented
from infra.providers.kubernetes_shapes import GPU, MANAGER, Condition, ContainerState, Job, Pod, Said, Terminated

PRODUCT = "nvidia.com/gpu.product"  # a label of nodes, set by NVIDIA's GPU feature discovery
OF_JOB = "batch.kubernetes.io/job-name"
_KEPT_SECONDS = 86_400  # how long the cluster keeps a Job that has ended, should nobody remove it
_GRACE_SECONDS = 30
# Why a pod is over without its command having ended: its node was taken, or did not take it.
_TAKEN = ("Evicted", "NodeLost", "NodeShutdown", "Preempting", "Shutdown", "Terminated", "UnexpectedAdmissionError")


def asked(order: Order, product: str, gpus: int) -> dict[str, Any]:
    """Return the Job of an order, for a node whose GPUs are of a product, or of any where that is empty."""
    labels = dict([MANAGER])
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": order.name, "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": order.max_seconds,
            "ttlSecondsAfterFinished": _KEPT_SECONDS,
            # Without this, a pod that the cluster takes away looks like a command that has failed.
            "podFailurePolicy": {
                "rules": [{"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
            },
            "template": {"metadata": {"labels": labels}, "spec": _asked_pod(order, product, gpus)},
        },
    }


def _asked_pod(order: Order, product: str, gpus: int) -> dict[str, Any]:
    container = {
        "name": "trainer",
        "image": order.image,
        "command": list(order.command),
        "env": [{"name": name, "value": value} for name, value in order.environment.items()],
        "resources": {"limits": {GPU: str(gpus)}, "requests": {"ephemeral-storage": f"{order.disk_gb}G"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        # The usual 64 MB of shared memory are too little for processes that exchange tensors.
        "volumeMounts": [{"name": "shared-memory", "mountPath": "/dev/shm"}],
    }
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,  # the machine has no business with the cluster
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "nodeSelector": {PRODUCT: product} if product else {},
        "tolerations": [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}],
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "shared-memory", "emptyDir": {"medium": "Memory"}}],
    }


def rented(job: Job, pods: Sequence[Pod], warnings: Sequence[Said] = ()) -> Rented:
    """Return the machine that a Job and its pods (one, or none yet or any more) are; warnings say why there is none."""
    state, exit_code, reason = _state(job, pods[-1] if pods else None)
    if state is MachineState.BOOTING and not pods and warnings:
        reason = warnings[-1].words
    return Rented(
        id=job.metadata.name,
        name=job.metadata.name,
        state=state,
        created_at=job.metadata.created,
        exit_code=exit_code,
        reason=reason,
    )


def _state(job: Job, pod: Pod | None) -> tuple[MachineState, int | None, str]:
    conditions = job.status.conditions
    ended = _condition(conditions, "Failed") or _condition(conditions, "Complete")
    if ended and ended.reason == "PodFailurePolicy":
        return MachineState.LOST, None, ended.words
    if pod is not None:
        return _state_of_pod(pod, ended)
    if ended is None:
        return MachineState.BOOTING, None, "There is no pod yet."
    # A pod that has failed is kept; one that is gone, though no deadline was missed, was taken away.
    is_lost = ended.reason == "BackoffLimitExceeded"
    return MachineState.LOST if is_lost else MachineState.ENDED, None, ended.words


def _state_of_pod(pod: Pod, ended: Condition | None) -> tuple[MachineState, int | None, str]:
    status = pod.status
    container = status.containers[0].state if status.containers else ContainerState()
    taken = _condition(status.conditions, "DisruptionTarget")
    match status.phase:
        case "Pending":
            unscheduled = _condition(status.conditions, "PodScheduled", "False")
            why = next((said for said in (container.waiting, unscheduled) if said and said.reason), Said())
            return MachineState.BOOTING, None, why.words
        case "Running" if not container.terminated and not ended:
            return MachineState.RUNNING, None, ""
        case "Unknown":
            return MachineState.LOST, None, status.words or "Its node does not answer."
        case _ if taken or status.reason in _TAKEN:
            return MachineState.LOST, None, (taken or status).words
        case _:
            return MachineState.ENDED, *_end_of(container.terminated, ended)


def _end_of(command: Terminated | None, job: Condition | None) -> tuple[int | None, str]:
    """Return a command's exit code, and why it ended if not by itself."""
    exit_code = command.exit_code if command else None
    if job and job.reason == "DeadlineExceeded":
        return exit_code, job.words
    return exit_code, command.words if command and command.reason not in ("Completed", "Error") else ""


def _condition(conditions: Sequence[Condition], name: str, status: str = "True") -> Condition | None:
    return next((one for one in conditions if one.type == name and one.status == status), None)
