"""A stored adapter, read and checked against the base model that it is to be put on."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from infra.serving.lora import LayerWeights, linear_weight, sizes
from peft_studio.adapter_config import CONFIG, unserved
from peft_studio.adapter_files import PARTS, PREFIX, WEIGHTS
from peft_studio.errors import InvalidConfig, NotFound

TEMPLATE = "chat_template.jinja"


@dataclass(frozen=True)
class BaseName:
    """Which model an endpoint holds: what it was loaded from, and the revision, where one was given."""

    source: str
    revision: str | None = None


@dataclass(frozen=True)
class Adapter:
    """An adapter that fits: its weights by layer, and its chat template where it brings one."""

    weights: Mapping[str, LayerWeights]
    chat_template: str | None


@torch.no_grad()
def read_adapter(folder: Path, model: nn.Module, base: BaseName) -> Adapter:
    """Read a PEFT adapter; raises ``NotFound`` or ``InvalidConfig`` with the reason why it cannot be served."""
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise NotFound(f"There is no adapter in {str(folder)!r}: it needs {CONFIG} and {WEIGHTS}.", field="lora_path")
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        tensors = load_file(folder / WEIGHTS, device=str(next(model.parameters()).device))
    except (ValueError, OSError, SafetensorError) as error:
        _refuse(f"its files cannot be read: {error}")
    if not isinstance(config, dict):
        _refuse(f"its {CONFIG} is not an object")
    if reason := unserved(config):
        _refuse(reason)
    _check_base(config, base)
    modules = dict(model.named_modules())
    weights = {name: _layer(name, parts, config, modules) for name, parts in _by_layer(tensors).items()}
    if not weights:
        _refuse(f"its {WEIGHTS} holds no weights")
    return Adapter(weights, _chat_template(folder))


def _by_layer(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, part = key.removeprefix(PREFIX).removesuffix(".weight").rpartition(".")
        if part not in PARTS or not key.startswith(PREFIX):
            _refuse(f"it holds {key!r}; only LoRA and DoRA on linear layers are served")
        if not torch.isfinite(tensor).all():
            _refuse(f"{key!r} holds numbers that are not finite")
        layers.setdefault(name, {})[part] = tensor.float()
    return layers


def _layer(
    name: str, parts: Mapping[str, Tensor], config: Mapping[str, Any], modules: Mapping[str, nn.Module]
) -> LayerWeights:
    """Check one layer's part of the adapter against the base model, and fold its scaling in."""
    try:
        module = modules[name]
        inputs, outputs = sizes(module)
        down, up = parts["lora_A"], parts["lora_B"]
    except KeyError:
        _refuse(f"the base model has no layer {name!r}" if name not in modules else f"{name!r} lacks one of its halves")
    except TypeError as error:
        _refuse(f"{name!r}: {error}")
    if ".experts." in name:
        _refuse(f"{name!r} sees some of the tokens only; adapters on experts are not served")
    rank = len(down)
    if down.shape != (rank, inputs) or up.shape != (outputs, rank):
        _refuse(
            f"its shapes for {name!r} are {tuple(down.shape)} and {tuple(up.shape)}, "
            f"the base model's layer takes {inputs} and gives {outputs}"
        )
    patterns: dict[str, Any] = config.get("alpha_pattern") or {}
    alpha = patterns.get(get_pattern_key(list(patterns), name), config.get("lora_alpha"))
    if not isinstance(alpha, (int, float)):
        _refuse(f"its lora_alpha is {alpha!r}")
    up = up.T * (alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))
    magnitude = parts.get("lora_magnitude_vector")
    if magnitude is None:
        return LayerWeights(down, up)
    if magnitude.numel() != outputs:
        _refuse(f"its magnitudes for {name!r} are {magnitude.numel()}, not {outputs}")
    # A DoRA layer's length is its magnitude, whatever base weight and update come to; neither changes from here on.
    length = torch.linalg.norm(linear_weight(module).float() + up.T @ down, dim=1)
    return LayerWeights(down, up, magnitude.reshape(outputs) / length)


def _check_base(config: Mapping[str, Any], base: BaseName) -> None:
    made_for, revision = config.get("base_model_name_or_path"), config.get("revision")
    if made_for and not _same_model(str(made_for), base.source):
        _refuse(f"it was trained on {made_for!r}, this endpoint holds {base.source!r}")
    if revision and base.revision and revision != base.revision:
        _refuse(f"it was trained on revision {revision} of {made_for!r}, this endpoint holds {base.revision}")


def _same_model(one: str, other: str) -> bool:
    """Whether two names mean one model: a folder by any path, a hub's model by its id or as it lies in the cache."""
    return _plain(one) == _plain(other)


def _plain(name: str) -> str:
    path = Path(name)
    for part in path.parts:
        if part.startswith("models--"):
            return part.removeprefix("models--").replace("--", "/")
    return str(path.resolve()) if path.is_dir() else name


def _chat_template(folder: Path) -> str | None:
    if (folder / TEMPLATE).is_file():
        return (folder / TEMPLATE).read_text(encoding="utf-8")
    try:
        template = json.loads((folder / "tokenizer_config.json").read_bytes()).get("chat_template")
    except (OSError, ValueError, AttributeError):
        return None
    return template if isinstance(template, str) else None


def _refuse(reason: str) -> NoReturn:
    raise InvalidConfig(f"The adapter cannot be served: {reason}.", field="lora_path", issue=reason)
