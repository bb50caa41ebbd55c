"""LoftQ: an adapter that starts by making up for what quantization took from the base model."""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers.utils.hub import cached_file

from peft_studio.errors import InvalidConfig
from peft_studio.trainer.model import Base

PREFIX = "base_model.model."


@torch.no_grad()
def start_from_rounding_errors(model: Any, base: Base) -> None:
    """
    Set every layer's factors to the best approximation of its rounding error (https://arxiv.org/abs/2310.08659).

    PEFT has the same, on GPUs only.
    """
    from bitsandbytes.functional import dequantize_4bit
    from peft.tuners.lora import Linear4bit

    weights = _Weights(base)
    for name, layer in model.named_modules():
        if not isinstance(layer, Linear4bit):
            continue
        held: Any = layer.get_base_layer().weight
        original = weights.read(f"{name.removeprefix(PREFIX)}.weight").to(held.device, torch.float32)
        error = original - dequantize_4bit(held.data, held.quant_state).float()
        left, sizes, right = torch.linalg.svd(error, full_matrices=False)
        down, up = (model.get_parameter(f"{name}.{half}.default.weight") for half in ("lora_A", "lora_B"))
        root = (sizes[: len(down)] / layer.scaling["default"]).sqrt()  # as many as there are ranks, or singular values
        down.zero_()[: len(root)] = root[:, None] * right[: len(root)]
        up.zero_()[:, : len(root)] = left[:, : len(root)] * root


class _Weights:
    """The base model's own weights, one tensor at a time."""

    def __init__(self, base: Base):
        self._files: dict[str, str] = {}
        for path in _weight_files(base):
            with safe_open(path, "pt") as file:
                self._files |= dict.fromkeys(file.keys(), path)

    def read(self, name: str) -> torch.Tensor:
        # A model's own prefix ("model.") is missing in files of models that were stored without their head.
        known = next((each for each in (name, name.removeprefix("model.")) if each in self._files), None)
        if known is None:
            raise InvalidConfig(
                f"The base model's files hold no {name!r}, from which loftq would start.",
                field="algorithm",
                issue="Use qlora.",
            )
        with safe_open(self._files[known], "pt") as file:
            return file.get_tensor(known)


def _weight_files(base: Base) -> list[str]:
    if Path(base.source).is_dir():
        return [str(path) for path in sorted(Path(base.source).glob("*.safetensors"))]
    one = cached_file(base.source, "config.json", revision=base.revision)
    return [str(path) for path in sorted(Path(str(one)).parent.glob("*.safetensors"))]
