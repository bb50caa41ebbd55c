"""
PEFT's ``adapter_config.json`` for an uploaded adapter: written anew from what its weights, metadata and config say.

What was sent is never stored as it is: PEFT takes module names as patterns to match with, and some fields of the file
as names of modules to import.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from peft_studio.adapter_files import Layers, is_named, refuse_file
from peft_studio.adapters import UploadMetadata
from peft_studio.algorithm_table import METHODS
from peft_studio.algorithms import Algorithm

CONFIG = "adapter_config.json"
# Ways to begin that leave the base model's weights as they are; all others change them.
PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal")
# Settings that change what an adapter computes, in ways that are not served here.
UNSERVED = (
    *("modules_to_save", "target_parameters", "trainable_token_indices", "layer_replication", "lora_bias"),
    *("alora_invocation_tokens", "use_qalora", "use_bdlora", "arrow_config", "kasa_config", "monteclora_config"),
)
# Algorithms whose adapters are plain LoRA or DoRA once they are trained.
PLAIN = tuple(name for name, method in METHODS.items() if method.served)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
LayerName = Annotated[str, Field(pattern=r"^\^?\w+(\.\w+)*$", max_length=300)]
V = TypeVar("V")


class SentConfig(BaseModel):
    """What is read of an ``adapter_config.json`` that came with an upload."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    r: int = Field(ge=1, le=65_536)
    lora_alpha: float = Field(gt=0, le=1e6)
    rank_pattern: dict[LayerName, int] = {}
    alpha_pattern: dict[LayerName, float] = {}
    use_dora: bool = False
    use_rslora: bool = False
    fan_in_fan_out: bool = False
    target_modules: list[str] | str | None = None
    base_model_name_or_path: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class Parameters:
    """How an adapter is parametrised: a rank and an alpha for all layers, and those of layers that differ."""

    algorithm: Algorithm
    rank: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]


def unserved(config: Mapping[str, Any]) -> str | None:
    """Say why an adapter with this configuration is not served here; None where nothing speaks against it."""
    if config.get("peft_type") != "LORA":
        return f"its peft_type is {config.get('peft_type')!r}; only LORA is served"
    if config.get("bias", "none") != "none":
        return "it was trained with biases; only bias 'none' is served"
    if (start := config.get("init_lora_weights")) not in PLAIN_STARTS:
        return f"it starts from {start!r}, which changes the base model; convert it to plain LoRA"
    return next((f"its {name} is set, which is not served" for name in UNSERVED if config.get(name)), None)


def read_config(content: bytes) -> SentConfig:
    """Read a configuration that was sent; raises ``InvalidConfig`` with what is wrong in it."""
    try:
        config: object = json.loads(content)
    except (ValueError, RecursionError):
        raise refuse_file("it is not JSON", "config") from None
    if not isinstance(config, dict):
        raise refuse_file("it is not a JSON object", "config")
    if reason := unserved(config):
        raise refuse_file(reason, "config")
    try:
        return SentConfig.model_validate(config)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:100]
        raise refuse_file(f"{where}: {first['msg']}", "config") from None


def parameters_of(layers: Layers, metadata: UploadMetadata, sent: SentConfig | None) -> Parameters:
    """Bring together what weights, metadata and config say; raises ``InvalidConfig`` where they do not agree."""
    if sent:
        _agree("rank", metadata.rank, sent.r)
        _agree("alpha", metadata.alpha, sent.lora_alpha)
        _check_base(metadata, sent)
    usual = Counter(layer.rank for layer in layers.values()).most_common(1)[0][0]
    rank = sent.r if sent else metadata.rank or usual
    _check_ranks(layers, metadata, sent)
    _check_modules(layers, metadata.target_modules, "target_modules")
    if sent and isinstance(sent.target_modules, list):
        _check_modules(layers, sent.target_modules, "config")
    algorithm = _algorithm(layers, metadata, sent)
    as_they_are = math.sqrt(rank) if algorithm is Algorithm.RSLORA else rank
    return Parameters(
        algorithm=algorithm,
        rank=rank,
        alpha=sent.lora_alpha if sent else metadata.alpha or as_they_are,
        ranks={name: layer.rank for name, layer in layers.items() if layer.rank != rank},
        alphas=_by_layer(sent.alpha_pattern, layers) if sent else {},
    )


def written_config(
    layers: Layers, parameters: Parameters, sent: SentConfig | None, base_model: str, revision: str | None
) -> dict[str, Any]:
    """Return the configuration that stock PEFT loads the adapter with: every layer by its full name."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "revision": revision,
        "inference_mode": True,
        "r": parameters.rank,
        "lora_alpha": int(parameters.alpha) if parameters.alpha == int(parameters.alpha) else parameters.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(layers),
        "rank_pattern": {f"^{name}": rank for name, rank in parameters.ranks.items()},
        "alpha_pattern": {f"^{name}": alpha for name, alpha in parameters.alphas.items()},
        "use_dora": parameters.algorithm is Algorithm.DORA,
        "use_rslora": sent.use_rslora if sent else parameters.algorithm is Algorithm.RSLORA,
        "fan_in_fan_out": sent.fan_in_fan_out if sent else False,
        "init_lora_weights": True,
    }


def _agree(field: str, told: float | None, configured: float) -> None:
    if told not in (None, configured):
        raise refuse_file(f"the metadata says {told:g}, the config {configured:g}", field)


def _check_base(metadata: UploadMetadata, sent: SentConfig) -> None:
    """Compare hub ids, where both name one; a folder may have had another name where the adapter was trained."""
    named = sent.base_model_name_or_path
    if named and _HUB_ID.fullmatch(named) and _HUB_ID.fullmatch(metadata.base_model) and named != metadata.base_model:
        raise refuse_file(f"the metadata says {metadata.base_model!r}, the config {named!r}", "base_model")


def _algorithm(layers: Layers, metadata: UploadMetadata, sent: SentConfig | None) -> Algorithm:
    has_magnitudes = any(layer.has_magnitude for layer in layers.values())
    is_scaled_by_root = sent.use_rslora if sent else metadata.algorithm is Algorithm.RSLORA
    found = Algorithm.DORA if has_magnitudes else Algorithm.RSLORA if is_scaled_by_root else Algorithm.LORA
    algorithm = metadata.algorithm or found
    if algorithm not in PLAIN:
        raise refuse_file(f"{algorithm} adapters are not taken; {', '.join(PLAIN)} are", "algorithm")
    if METHODS[algorithm].moves_base and sent is None:
        # Weights look the same before they are converted, and mean something else.
        issue = f"{algorithm} changes the base model; send the adapter_config.json that says it was made plain LoRA"
        raise refuse_file(issue, "config")
    for field, is_dora in ("algorithm", algorithm is Algorithm.DORA), ("config", sent.use_dora if sent else None):
        if is_dora not in (None, has_magnitudes):
            held = "holds" if has_magnitudes else "does not hold"
            raise refuse_file(f"the file {held} magnitudes, which are what makes a LoRA a DoRA", field)
    if (algorithm is Algorithm.RSLORA) and not is_scaled_by_root:
        raise refuse_file("the metadata says rslora, the config's use_rslora is false", "algorithm")
    return algorithm


def _check_ranks(layers: Layers, metadata: UploadMetadata, sent: SentConfig | None) -> None:
    rank = sent.r if sent else metadata.rank
    if rank is None:
        return
    special = _by_layer(sent.rank_pattern, layers) if sent else {}
    for name, layer in layers.items():
        if layer.rank != (said := special.get(name, rank)):
            raise refuse_file(f"it is {layer.rank} for {name!r} in the file, not {said}", "rank")


def _check_modules(layers: Layers, names: Sequence[str] | None, field: str) -> None:
    """See that the names mean the layers that are adapted: all of them, and no others."""
    if names is None:
        return
    endings = {layer: _endings(layer) for layer in layers}
    known = set().union(*endings.values())
    if unknown := next((name for name in names if name not in known), None):
        raise refuse_file(f"the file holds no weights for {unknown[:100]!r}", field)
    told = set(names)
    if other := next((layer for layer in layers if told.isdisjoint(endings[layer])), None):
        raise refuse_file(f"the file holds weights for {other!r}, which is not among them", field)


def _endings(layer: str) -> list[str]:
    parts = layer.split(".")
    return [".".join(parts[n:]) for n in range(len(parts))]


def _by_layer(pattern: Mapping[str, V], layers: Layers) -> dict[str, V]:
    """Resolve PEFT's patterns, of which only plain names are taken: the first that means a layer counts."""
    found: dict[str, V] = {}
    for layer in layers:
        for name, value in pattern.items():
            if layer == name[1:] if name.startswith("^") else is_named(layer, name):
                found[layer] = value
                break
    return found
