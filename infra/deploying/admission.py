"""Whether an adapter can be served as it is asked for: known before anything is made."""

from pathlib import Path
from typing import Any, Protocol

from infra.hosts.base import Host, Limits, Wanted
from infra.platforms.vendors import VENDORS
from infra.serving.choosing import objections
from infra.settings import LocalEngine, Settings
from peft_studio.adapter_config import CONFIG
from peft_studio.adapters import Adapter
from peft_studio.algorithm_table import METHODS
from peft_studio.choices import Bias, ServeTarget
from peft_studio.config import TrainingConfig
from peft_studio.deployments import DeploymentConfig
from peft_studio.errors import InvalidConfig
from peft_studio.exports import ExportPage
from peft_studio.jobs import JobStatus
from peft_studio.model_files import read_object
from peft_studio.objectives import AIMS
from peft_studio.plan import ModelFacts
from peft_studio.serve_targets import planned_conversion

_THIS_MACHINE = (None, "local", "auto")
# As a target, Replicate is a model that is pushed there; as a platform it is one there that takes a LoRA.
_TAKE_LORA = (ServeTarget.REPLICATE,)
_OF_PEFT = ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save")


class Exports(Protocol):
    """Where it is known what adapters were made into."""

    async def list(
        self, adapter_id: str | None = None, status: JobStatus | None = None, limit: int = 20, cursor: str | None = None
    ) -> ExportPage:
        """Return exports, newest first."""
        ...


def check_for_this_machine(config: DeploymentConfig) -> None:
    """Refuse what this machine cannot honour."""
    if config.instance_type not in _THIS_MACHINE:
        raise refused(
            "instance_type",
            f"this machine is no {config.instance_type!r}; use 'local', or leave the field out",
        )
    if config.max_replicas > 1:
        raise refused("max_replicas", "this machine serves one replica, which answers many requests at a time")
    if config.auto_scaling:
        raise refused("auto_scaling", "this machine cannot become more; set it to false")


def check_served_here(adapter: Adapter, settings: Settings) -> None:
    """Refuse an adapter that nothing on this machine serves."""
    if not METHODS[adapter.algorithm].served:
        raise refused("adapter_id", f"the local endpoint does not serve {adapter.algorithm} adapters")
    if not AIMS[adapter.objective].writes:
        raise refused("adapter_id", f"an adapter that was trained for {adapter.objective} writes no text")
    if settings.local_engine is not LocalEngine.VLLM:
        return
    if issues := objections(str(Path(adapter.path).parent), settings.vllm_max_lora_rank):
        raise refused("adapter_id", f"vLLM, by which this machine serves adapters, takes none like it: {issues[0]}")


def check_limits(platform: str, limits: Limits, config: DeploymentConfig) -> None:
    """Refuse what a platform cannot be asked for; raises ``InvalidConfig`` with the field."""
    name = VENDORS[platform].display_name
    if config.instance_type is not None and not limits.instance_types:
        raise refused("instance_type", f"at {name} it cannot be chosen; leave the field out")
    if config.max_replicas > limits.replicas:
        raise refused("max_replicas", f"{name} gives a deployment {limits.replicas} at most")
    if config.min_replicas < 1 and not limits.rests:
        raise refused("min_replicas", f"{name} lets no deployment rest; use 1, and delete what is not used")
    if config.auto_scaling and not limits.scales:
        raise refused("auto_scaling", f"{name} does not choose how many replicas there are; set it to false")


async def files_for(platform: str, adapter: Adapter, model: ModelFacts, exports: Exports) -> str | None:
    """
    Return the folder of the export that a platform takes in the place of an adapter; None where it takes the adapter.

    Raises ``InvalidConfig`` where it takes neither, or where the adapter has not been exported so yet.
    """
    target = ServeTarget(platform) if platform in list(ServeTarget) and platform not in _TAKE_LORA else ServeTarget.VLLM
    try:
        planned = planned_conversion(_as_configured(adapter, target), model)
    except InvalidConfig as error:
        raise refused("adapter_id", f"it cannot be served there, as it was made with {error.message}") from None
    if planned is None:
        return None
    found = await exports.list(adapter.id, JobStatus.COMPLETED, limit=100)
    made = next((one.path for one in found.exports if one.config.format == planned.format and one.path), None)
    if made is None:
        raise refused(
            "adapter_id",
            f"{planned.reason}: export it first (POST /api/v1/adapters/{adapter.id}/exports with format "
            f"{planned.format!r}), then deploy it again",
        )
    return made


def check_host(platform: str, host: Host, wanted: Wanted, *, converted: bool) -> None:
    """Refuse what a platform cannot do with an adapter, converted or not; raises ``InvalidConfig`` with the field."""
    check_limits(platform, host.limits, wanted.config)
    if host.limits.published and converted:
        raise refused(
            "adapter_id",
            f"{VENDORS[platform].display_name} fetches adapters from the Hugging Face Hub, and takes this one only "
            "converted, which is not what is published there: upload the conversion as an adapter, and publish that",
        )
    if host.limits.published and wanted.repository is None:
        raise refused(
            "adapter_id",
            f"{VENDORS[platform].display_name} fetches adapters from the Hugging Face Hub, and this one is not "
            "published there: publish it first (POST /api/v1/adapters/{adapter_id}/publish), then deploy it again",
        )
    host.check(wanted)


def refused(field: str, issue: str) -> InvalidConfig:
    """Return the error of a request that cannot be honoured."""
    return InvalidConfig.of(field, issue)


def _as_configured(adapter: Adapter, target: ServeTarget) -> TrainingConfig:
    """Describe a stored adapter as the job that would make it: the table of targets knows adapters by that."""
    made = read_object(Path(adapter.path).parent / CONFIG) or {}
    given: dict[str, Any] = {name: made[name] for name in _OF_PEFT if made.get(name)}
    return TrainingConfig.model_construct(
        base_model=adapter.base_model,
        algorithm=adapter.algorithm,
        objective=adapter.objective,
        rank=adapter.metadata.rank,
        target_modules=list(adapter.metadata.target_modules),
        serve_target=target,
        bias=Bias(made.get("bias") or Bias.NONE),
        **given,
    )
