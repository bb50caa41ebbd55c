"""An adapter's weights before anything loads them: which layers they adapt, by what rank, and for which base model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from peft_studio.errors import InvalidConfig
from peft_studio.model_shapes import Shapes
from peft_studio.safetensors_files import FLOATS, Tensor, UnsafeFile, not_finite, read_header

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
PARTS = ("lora_A", "lora_B", "lora_magnitude_vector")
MOST_HEADER = 16 << 20  # some fifty thousand layers' worth
_LONGEST_NAME = 300
_TAIL = 3  # components of a layer's name that are the same in a model's file and in the loaded model


@dataclass(frozen=True)
class AdaptedLayer:
    """What an adapter does to one linear layer."""

    rank: int
    inputs: int
    outputs: int
    has_magnitude: bool


Layers = Mapping[str, AdaptedLayer]


def refuse_file(issue: str, field: str = "file") -> InvalidConfig:
    """Return the error that says what is wrong with an adapter's file."""
    return InvalidConfig.of(field, issue)


def read_layers(path: Path) -> dict[str, AdaptedLayer]:
    """
    Return the layers that an adapter's weights adapt; raises ``InvalidConfig`` where they are no LoRA or DoRA.

    Looks at every number, a few megabytes at a time: none may be infinite or not a number.
    """
    try:
        tensors = read_header(path, MOST_HEADER)
    except UnsafeFile as error:
        raise refuse_file(str(error)) from None
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, part = _split(key)
        if tensor.dtype not in FLOATS:
            raise refuse_file(f"{key!r} is of type {tensor.dtype}; weights are {', '.join(sorted(FLOATS))}")
        if part in parts.setdefault(name, {}):
            raise refuse_file(f"it holds {part} of {name!r} twice")
        parts[name][part] = tensor
    if not parts:
        raise refuse_file("it holds no weights")
    layers = {name: _layer(name, found) for name, found in sorted(parts.items())}
    if len({layer.has_magnitude for layer in layers.values()}) > 1:
        raise refuse_file("it has magnitudes (DoRA) for some of its layers only")
    if wild := next(not_finite(path, tensors), None):
        raise refuse_file(f"{wild!r} holds numbers that are infinite or not a number")
    return layers


def check_against_model(layers: Layers, shapes: Shapes, name: str) -> None:
    """Raise ``InvalidConfig`` unless the model whose weights have these shapes has all layers, in the right sizes."""
    by_tail: dict[str, list[list[int]]] = {}
    for weight, shape in shapes.items():
        if len(shape) == 2:
            by_tail.setdefault(_tail(weight.removesuffix(".weight")), []).append(shape)
    for layer, adapted in layers.items():
        # An output head that shares the embedding's weights is in no file by its own name.
        found = by_tail.get(_tail(layer)) or ([] if "." in layer else _embeddings(shapes))
        if not found:
            raise refuse_file(f"{name!r} has no layer {layer!r}, which the adapter adapts", "base_model")
        size = {adapted.inputs, adapted.outputs}
        if all(set(shape) != size for shape in found):
            raise refuse_file(
                f"the adapter's {layer!r} takes {adapted.inputs} and gives {adapted.outputs}, "
                f"that of {name!r} has a weight of {' x '.join(map(str, found[0]))}",
                "base_model",
            )


def is_named(layer: str, name: str) -> bool:
    """Whether a name in a list of modules means this layer: its own name or the end of it, as PEFT has it."""
    return layer == name or layer.endswith(f".{name}")


def _split(key: str) -> tuple[str, str]:
    name, _, part = key.removeprefix(PREFIX).removesuffix(".weight").rpartition(".")
    if not key.startswith(PREFIX) or part not in PARTS or not re.fullmatch(r"\w+(\.\w+)*", name, re.ASCII):
        raise refuse_file(
            f"it holds {key[:_LONGEST_NAME]!r}; only LoRA and DoRA on linear layers are taken, "
            f"whose names are {PREFIX}LAYER.lora_A.weight, .lora_B.weight and .lora_magnitude_vector"
        )
    if len(name) > _LONGEST_NAME:
        raise refuse_file(f"it holds a layer with a name of {len(name)} characters")
    return name, part


def _layer(name: str, parts: Mapping[str, Tensor]) -> AdaptedLayer:
    down, up, magnitude = (parts.get(part) for part in PARTS)
    if down is None or up is None:
        raise refuse_file(f"it has only one of lora_A and lora_B for {name!r}")
    match down.shape, up.shape:
        case (rank, inputs), (outputs, other) if rank == other and min(rank, inputs, outputs) > 0:
            pass
        case _:
            raise refuse_file(
                f"its shapes for {name!r} are {list(down.shape)} and {list(up.shape)}: "
                "lora_A must be rank x inputs and lora_B outputs x rank"
            )
    if magnitude is not None and magnitude.shape != (outputs,):
        raise refuse_file(f"its magnitudes for {name!r} are {list(magnitude.shape)}, not [{outputs}]")
    return AdaptedLayer(rank, inputs, outputs, magnitude is not None)


def _tail(name: str) -> str:
    return ".".join(name.split(".")[-_TAIL:])


def _embeddings(shapes: Shapes) -> list[list[int]]:
    return [shape for name, shape in shapes.items() if len(shape) == 2 and ("embed" in name or "wte" in name)]
