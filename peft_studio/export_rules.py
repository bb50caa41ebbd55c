"""Which adapters can be exported as what: known before anything is loaded, from their kind and configuration alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from peft_studio.adapters import Adapter
from peft_studio.algorithm_table import METHODS
from peft_studio.algorithms import Algorithm, Targets
from peft_studio.errors import InvalidConfig
from peft_studio.exports import ExportConfig, ExportFormat, GgufType, Weights
from peft_studio.objectives import AIMS
from peft_studio.plan import ModelFacts

# As seen with PEFT 0.21; all others give the adapter's logits when they are merged.
_UNMERGEABLE: Mapping[Algorithm, str] = {
    Algorithm.LILY: "PEFT has no merged form of it",
    Algorithm.BEFT: "it adds biases, for which the base model's layers have no place",
    Algorithm.LOFTQ: "it makes up for the rounding of a 4-bit base model, and would spoil one that is not rounded",
}
_NOT_LINEAR = {Algorithm.LN_TUNING: "normalisation layers", Algorithm.TRAINABLE_TOKENS: "embeddings"}
# The classes that peft_studio.exporter.gguf_architectures has a row for, which takes gguf and torch to read.
GGUF_ARCHITECTURES = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "GemmaForCausalLM",
    "Gemma2ForCausalLM",
    "Gemma3ForCausalLM",
    "Phi3ForCausalLM",
    "Olmo2ForCausalLM",
    "SmolLM3ForCausalLM",
    "GraniteForCausalLM",
)
_BYTES = {
    Weights.FLOAT32: 4.0,
    Weights.FLOAT16: 2.0,
    Weights.BFLOAT16: 2.0,
    GgufType.F32: 4.0,
    GgufType.F16: 2.0,
    GgufType.BF16: 2.0,
    GgufType.Q8_0: 34 / 32,
}
_SMALL_FILES = 64 << 20  # tokenizer, configuration, and what rounding up costs


def unmergeable(algorithm: Algorithm) -> str | None:
    """Say why adapters of a kind have no merged form; None where they have."""
    if METHODS[algorithm].targets is Targets.PROMPT:
        return "it stands before every text, and changes no weights"
    return _UNMERGEABLE.get(algorithm)


def check_export(config: ExportConfig, adapter: Adapter, model: ModelFacts) -> None:
    """Raise ``InvalidConfig`` with the field and the reason where an adapter cannot be exported as is asked."""
    algorithm = adapter.algorithm
    if reason := unmergeable(algorithm):
        raise _refused(f"{algorithm} adapters cannot be exported as {config.format}: {reason}")
    if not AIMS[adapter.objective].writes:
        raise _refused(f"an adapter that was trained for {adapter.objective} has a head of its own; it is not exported")
    if config.format in (ExportFormat.GGUF, ExportFormat.OLLAMA) and model.architecture not in GGUF_ARCHITECTURES:
        known = ", ".join(GGUF_ARCHITECTURES)
        raise _refused(f"{model.architecture} is not among the architectures that are written as GGUF: {known}")
    if config.format is ExportFormat.LORA:
        _check_conversion(adapter)


def needed_bytes(config: ExportConfig, adapter: Adapter, model: ModelFacts) -> int:
    """Estimate the room that an export's files take."""
    if config.format is ExportFormat.LORA:
        return 4 * adapter.size_bytes * max(1, (config.rank or 1) // max(1, adapter.metadata.rank)) + _SMALL_FILES
    kind = config.weights or config.gguf_type or (Weights.BFLOAT16 if config.format is ExportFormat.MERGED else None)
    return int(model.parameters * _BYTES[kind or GgufType.F16]) + _SMALL_FILES


def is_plain_lora(adapter: Path) -> bool:
    """Whether the adapter in a folder is a plain LoRA already, with one rank and one scale for all layers."""
    config = _settings(adapter)
    others = ("use_dora", "rank_pattern", "alpha_pattern")
    return config.get("peft_type") == "LORA" and not any(config.get(name) for name in others)


def _check_conversion(adapter: Adapter) -> None:
    if beside := _beside_linear(adapter):
        raise _refused(f"it changes {beside}, and a plain LoRA changes the weights of linear layers only; use merged")
    if is_plain_lora(Path(adapter.path).parent):
        raise _refused("the adapter is a plain LoRA already; download it as it is")


def _settings(adapter: Path) -> dict[str, Any]:
    """Read PEFT's description of an adapter; where it cannot be read, the flow finds out by the layers themselves."""
    try:
        content: object = json.loads((adapter / "adapter_config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return cast(dict[str, Any], content) if isinstance(content, dict) else {}


def _beside_linear(adapter: Adapter) -> str | None:
    if changed := _NOT_LINEAR.get(adapter.algorithm):
        return changed
    config = _settings(Path(adapter.path).parent)
    if config.get("modules_to_save"):
        return f"modules as a whole ({', '.join(map(str, config['modules_to_save']))})"
    if config.get("trainable_token_indices"):
        return "embeddings of single tokens"
    return "biases" if config.get("bias", "none") != "none" else None


def _refused(issue: str) -> InvalidConfig:
    return InvalidConfig.of("format", issue)
