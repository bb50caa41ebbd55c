"""Whether a job's adapter could be served on this machine, as the job asks for: known before anything is trained."""

from infra.settings import LocalEngine, Settings
from peft_studio.algorithm_table import METHODS
from peft_studio.choices import ServeTarget
from peft_studio.config import Bias, TrainingConfig
from peft_studio.errors import InvalidConfig
from peft_studio.plan import ModelFacts
from peft_studio.serve_targets import planned_conversion, stored_rank


def check_deployment(config: TrainingConfig) -> None:
    """Refuse what no endpoint of this machine serves."""
    if config.deploy is None:
        return
    if not config.aim.writes:
        raise InvalidConfig.of("deploy", f"a model that was trained for {config.objective} writes no text to be served")
    if not config.method.served:
        served = ", ".join(name for name, method in METHODS.items() if method.served)
        raise InvalidConfig.of(
            "deploy", f"the local endpoint does not serve {config.algorithm} adapters; it serves {served}"
        )
    extras = [name for name in ("modules_to_save", "trainable_tokens") if getattr(config, name)]
    if extras := [*extras, *(["bias"] if config.bias is not Bias.NONE else [])]:
        raise InvalidConfig.of("deploy", f"the local endpoint does not serve adapters with {' and '.join(extras)}")


def check_engine(config: TrainingConfig, model: ModelFacts, settings: Settings) -> None:
    """Refuse what vLLM does not serve, where nothing else may serve adapters on this machine."""
    if config.deploy is None or settings.local_engine is not LocalEngine.VLLM:
        return
    there = config.model_copy(update={"serve_target": ServeTarget.VLLM})
    if conversion := planned_conversion(there, model):
        raise InvalidConfig.of("deploy", f"adapters are served by vLLM on this machine, and {conversion.reason}")
    if (rank := stored_rank(config)) > (most := settings.vllm_max_lora_rank):
        raise InvalidConfig.of(
            "rank", f"vLLM serves ranks up to {most} on this machine, and the adapter would have {rank}"
        )
