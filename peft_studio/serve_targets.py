"""
The table of places where adapters are served: what each takes, and whether a job's adapter will be servable there.

Known before anything is trained. What a target takes is as its vendor documents it; where the vendor says nothing of a
limit there is none here, and the target has the last word. What was found out live of these services: nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from peft_studio.adapter_config import PLAIN
from peft_studio.algorithms import Algorithm, Targets
from peft_studio.choices import Bias, ServeTarget
from peft_studio.config import TrainingConfig
from peft_studio.errors import InvalidConfig
from peft_studio.export_rules import GGUF_ARCHITECTURES
from peft_studio.exports import HIGHEST_RANK
from peft_studio.plan import ModelFacts, PlannedConversion
from peft_studio.vllm_rules import MAX_RANKS


class Takes(StrEnum):
    """What a target is given."""

    ADAPTER = "adapter"  # a LoRA, beside the base model that it has
    GGUF = "ollama"  # the whole model in one file, with a Modelfile
    MODEL = "merged"  # the whole model in the Hugging Face layout


@dataclass(frozen=True)
class Target:
    """One row."""

    takes: Takes
    source: str  # where its vendor says so
    ranks: tuple[int, int] = (1, 65_536)  # the least and the highest
    dora: bool = False
    patterns: bool = False  # whether it reads ranks and scales of single layers
    bases: tuple[str, ...] = ()  # the only base models that it serves


_VLLM_RANKS = (1, MAX_RANKS[-1])
TARGETS: Mapping[ServeTarget, Target] = {
    ServeTarget.LOCAL: Target(Takes.ADAPTER, "infra/serving", dora=True, patterns=True),
    ServeTarget.VLLM: Target(Takes.ADAPTER, "vllm/lora/peft_helper.py, vllm/config/lora.py", _VLLM_RANKS),
    ServeTarget.LORAX: Target(Takes.ADAPTER, "github.com/predibase/lorax, docs: LoRA"),
    # ADAPTER in a Modelfile was for Llama and Gemma 2 only, and is gone since 0.34 (ollama/ollama#14969).
    ServeTarget.OLLAMA: Target(Takes.GGUF, "github.com/ollama/ollama, docs/modelfile and docs/import"),
    # An endpoint of theirs runs vLLM's image with --lora-modules.
    ServeTarget.HUGGINGFACE: Target(Takes.ADAPTER, "Inference Endpoints: image vllm/vllm-openai", _VLLM_RANKS),
    ServeTarget.TOGETHER: Target(Takes.ADAPTER, "docs.together.ai: upload a LoRA adapter"),
    ServeTarget.FIREWORKS: Target(Takes.ADAPTER, "docs.fireworks.ai: HF_PEFT_ADDON, r from 4 to 64", (4, 64)),
    ServeTarget.PREDIBASE: Target(Takes.ADAPTER, "LoRAX, which it serves with"),
    ServeTarget.WANDB: Target(
        Takes.ADAPTER,
        "docs.wandb.ai: Inference, bring your own LoRA",
        (1, 64),
        bases=(
            "meta-llama/Llama-3.1-8B-Instruct",
            "meta-llama/Llama-3.1-70B-Instruct",
            "openai/gpt-oss-120b",
            "OpenPipe/Qwen3-14B-Instruct",
            "Qwen/Qwen3-30B-A3B-Instruct-2507",
        ),
    ),
    ServeTarget.REPLICATE: Target(Takes.MODEL, "replicate.com/docs: a Cog image holds the weights"),
}
_WANDB_RANKS = {"openai/gpt-oss-120b": 64}  # the other bases: 16
_WANDB_RANK = 16
# Kinds that are no LoRA, and change each layer by a matrix of so low a rank that a LoRA can be the very same.
LOW_RANK: Mapping[Algorithm, Callable[[TrainingConfig], int]] = {
    # It gives layers that need them more ranks than others, out of as many as it began with.
    Algorithm.ADALORA: lambda config: int(config.option("init_r") or max(config.rank + 1, config.rank * 3 // 2)),
    Algorithm.LOHA: lambda config: config.rank**2,
    **dict.fromkeys(
        (
            *(Algorithm.DELORA, Algorithm.MISS, Algorithm.TINYLORA, Algorithm.UNILORA),
            *(Algorithm.VBLORA, Algorithm.VERA, Algorithm.PVERA),
        ),
        lambda config: config.rank,
    ),
}
_UNMERGEABLE = frozenset((Algorithm.LILY, Algorithm.BEFT, Algorithm.LOFTQ))
_BESIDE = ("lm_head", "embed_tokens", "wte")


def planned_conversion(config: TrainingConfig, model: ModelFacts) -> PlannedConversion | None:
    """
    Say what the finished adapter has to be converted to for the job's target; None where it is served as it is.

    Raises ``InvalidConfig`` with the field that stands against it.
    """
    if (name := config.serve_target) is None:
        return None
    target = TARGETS[name]
    if not config.aim.writes:
        raise InvalidConfig.of(
            "objective", f"{name} serves models that write text, and {config.objective} trains another"
        )
    if target.bases and config.base_model not in target.bases:
        raise InvalidConfig.of("base_model", f"{name} serves adapters of {', '.join(target.bases)} only")
    if config.algorithm is Algorithm.LOFTQ:
        issue = f"it belongs to a base model in int4 as this studio rounds it, which {name} does not hold; use qlora"
        raise InvalidConfig.of("algorithm", issue)
    if target.takes is not Takes.ADAPTER:
        return _whole_model(config, model, name, target)
    _check_beside(config, name)
    return _as_adapter(config, name, target)


def _whole_model(config: TrainingConfig, model: ModelFacts, name: str, target: Target) -> PlannedConversion:
    if config.algorithm in _UNMERGEABLE or config.method.targets is Targets.PROMPT:
        issue = f"{name} takes no adapters, and {config.algorithm} cannot be merged into its base model; use lora"
        raise InvalidConfig.of("algorithm", issue)
    if target.takes is Takes.GGUF and model.architecture not in GGUF_ARCHITECTURES:
        known = ", ".join(GGUF_ARCHITECTURES)
        raise InvalidConfig.of("base_model", f"{name} takes GGUF, and a {model.architecture} is none of {known}")
    reason = f"{name} takes no adapters: it is merged into its base model, in 16 bits"
    return PlannedConversion(target=name, format=target.takes.value, reason=reason)


def _check_beside(config: TrainingConfig, name: str) -> None:
    """Refuse what is trained beside the layers' low-rank factors: nothing that serves many adapters takes it."""
    beside = {"modules_to_save": config.modules_to_save, "trainable_tokens": config.trainable_tokens}
    beside["bias"] = None if config.bias is Bias.NONE else [config.bias]
    if field := next((field for field, value in beside.items() if value), None):
        raise InvalidConfig.of(field, f"{name} serves the factors of linear layers only; leave the field out")
    if found := [one for one in config.target_modules or [] if one.rpartition(".")[2] in _BESIDE]:
        raise InvalidConfig.of("target_modules", f"{name} does not take an adapter on {', '.join(found)}")


def _as_adapter(config: TrainingConfig, name: str, target: Target) -> PlannedConversion | None:
    rank = stored_rank(config)
    if config.algorithm not in PLAIN and (name == ServeTarget.LOCAL or config.algorithm not in LOW_RANK):
        served = ", ".join(sorted((*PLAIN, *(() if name == ServeTarget.LOCAL else LOW_RANK))))
        raise InvalidConfig.of(
            "algorithm", f"{name} serves LoRA, which {config.algorithm} does not come to; it serves {served}"
        )
    is_dora = config.use_dora or config.algorithm is Algorithm.DORA
    if is_dora and not target.dora:
        field = "use_dora" if config.use_dora else "algorithm"
        raise InvalidConfig.of(field, f"{name} does not serve DoRA, whose magnitudes no LoRA can stand for; use lora")
    low, high = _ranks(config, target)
    if not low <= rank <= high:
        raise InvalidConfig.of(
            "rank", f"{name} takes ranks from {low} to {high}, and this {config.algorithm} would have {rank}"
        )
    if config.algorithm in LOW_RANK and rank > HIGHEST_RANK:
        raise InvalidConfig.of(
            "rank", f"{config.algorithm} would come to a LoRA of the rank {rank}; {HIGHEST_RANK} is the most"
        )
    if config.algorithm in LOW_RANK:
        reason = f"{name} serves LoRA, and {config.algorithm} comes to one of the rank {rank} when multiplied out"
        return PlannedConversion(target=name, format="lora", rank=rank, reason=reason)
    if (config.rank_pattern or config.alpha_pattern) and not target.patterns:
        reason = f"{name} reads one rank and one alpha for all layers: shorter ones are filled up with zeros"
        return PlannedConversion(target=name, format="lora", rank=rank, reason=reason)
    return None


def stored_rank(config: TrainingConfig) -> int:
    """Return the highest rank of a layer, in the adapter or in what it is converted to."""
    if config.algorithm in LOW_RANK:
        return LOW_RANK[config.algorithm](config)
    highest = max([config.rank, *config.rank_pattern.values()])
    return highest * 2 if config.method.moves_base else highest  # its first factors were the base model's


def _ranks(config: TrainingConfig, target: Target) -> tuple[int, int]:
    if config.serve_target is ServeTarget.WANDB:
        return target.ranks[0], _WANDB_RANKS.get(config.base_model, _WANDB_RANK)
    return target.ranks
