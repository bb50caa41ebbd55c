"""What a base model consists of, by name and size: told from a skeleton, before any weight is loaded."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers.initialization import no_init_weights
from transformers.pytorch_utils import Conv1D

from peft_studio.algorithms import Targets
from peft_studio.config import TrainingConfig
from peft_studio.errors import InvalidConfig
from peft_studio.objectives import Head
from peft_studio.trainer.heads import CLASSES, head_layers
from peft_studio.trainer.late import with_all_shapes


def skeleton(settings: Any, head: Head = Head.CAUSAL_LM) -> Any:
    """Build a model from its configuration without memory for its weights."""

    def build() -> Any:
        with torch.device("meta"), no_init_weights():
            return CLASSES[head].from_config(settings)

    try:
        return with_all_shapes(build)
    except ValueError as error:
        what = "that writes text" if head is Head.CAUSAL_LM else f"that takes the head {head}"
        raise InvalidConfig(
            f"The base model is none {what}: {str(error).splitlines()[0]}",
            field="base_model",
            issue="Choose a causal language model.",
        ) from error


def linear_layers(model: Any) -> list[str]:
    """Last components of the names of all linear layers but the output head; whole names where these would hit it."""
    head = set(map(id, head_layers(model)))
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    own = {name.rsplit(".", 1)[-1] for name, module in linear.items() if id(module) in head}
    whole = [name for name, module in linear.items() if id(module) not in head]
    short = {name.rsplit(".", 1)[-1] for name in whole}
    return whole if short & own else sorted(short)


def norm_layers(model: nn.Module) -> list[str]:
    """Last components of the names of all normalisation layers."""
    return sorted(
        {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if "Norm" in type(module).__name__}
    )


def target_layers(model: Any, config: TrainingConfig) -> list[str]:
    """Names of the layers that the configuration adapts: those asked for, or else the algorithm's own choice."""
    if config.target_modules is not None:
        return config.target_modules
    match config.method.targets:
        case Targets.LINEAR:
            return linear_layers(model)
        case Targets.NORMS:
            return norm_layers(model)
        case Targets.TOKENS:
            embedding = model.get_input_embeddings()
            return [name.rsplit(".", 1)[-1] for name, module in model.named_modules() if module is embedding]
        case Targets.PROMPT:
            return []


def require_names(model: Any, config: TrainingConfig) -> None:
    """Refuse names of what the model does not have; PEFT itself minds only where none of them exists."""
    modules = [name for name, _ in model.named_modules()]
    for field, names in (
        ("target_modules", config.target_modules or []),
        ("modules_to_save", config.modules_to_save or []),
        ("rank_pattern", config.rank_pattern),
        ("alpha_pattern", config.alpha_pattern),
    ):
        missing = [name for name in names if not any(is_named(module, name) for module in modules)]
        if missing:
            raise InvalidConfig(
                f"The base model has no layer {', '.join(map(repr, missing))}.",
                field=field,
                issue=f"Choose among {', '.join(_choice(model, field))}, or leave the field out.",
            )
    if config.layers_to_transform:
        _require_layers(model, config.layers_to_transform)
    for field in ("rank_pattern", "alpha_pattern"):
        idle = [name for name in getattr(config, field) if not _adapts(model, config, name)]
        if idle:
            raise InvalidConfig(
                f"{', '.join(map(repr, idle))} in {field} is none of the layers that are adapted.",
                field=field,
                issue="Name it in target_modules too, or leave it out.",
            )


def _require_layers(model: Any, numbers: list[int]) -> None:
    count = model.config.get_text_config().num_hidden_layers
    if max(numbers) >= count:
        raise InvalidConfig(
            f"The base model has no layer {max(numbers)}.",
            field="layers_to_transform",
            issue=f"Choose among 0 to {count - 1}.",
        )


def divisor(model: nn.Module, targets: Iterable[str], at_most: int) -> int:
    """The largest number up to ``at_most`` that divides the widths of all layers of these names."""
    widths = [
        width
        for name, module in model.named_modules()
        if any(is_named(name, target) for target in targets)
        for width in getattr(module, "weight", torch.empty(0)).shape
    ]
    common = math.gcd(*widths)
    return next(size for size in range(min(at_most, common), 0, -1) if common % size == 0)


def is_named(module: str, name: str) -> bool:
    """Whether a module is called by a name: its own, or the last components of it."""
    return module == name or module.endswith(f".{name}")


def _choice(model: Any, field: str) -> list[str]:
    if field != "modules_to_save":
        return linear_layers(model)
    return sorted({name.rsplit(".", 1)[-1] for name, module in model.named_modules() if list(module.parameters(False))})


def _adapts(model: nn.Module, config: TrainingConfig, name: str) -> bool:
    targets = target_layers(model, config)
    return any(
        is_named(module, name) and any(is_named(module, target) for target in targets)
        for module, _ in model.named_modules()
    )
