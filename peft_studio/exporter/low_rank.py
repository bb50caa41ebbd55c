"""
Plain LoRA from adapters of other kinds: what one adds to a layer's weights, as the closest product of given rank.

The closest one is that of the truncated singular value decomposition (Eckart and Young, 1936).
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import torch
from peft import LoraConfig, TaskType
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import pad

from peft_studio.adapter_files import PREFIX, WEIGHTS
from peft_studio.errors import InvalidConfig
from peft_studio.exporter.merge import Say, Source, copy_adapter, load_original
from peft_studio.exports import Approximation
from peft_studio.trainer.adapter import load_adapter

_WHOLE = 1024  # sides up to which all singular values are computed
_EXTRA, _ROUNDS = 16, 6  # of the randomised decomposition of larger ones (Halko, Martinsson and Tropp, 2011)


def write_plain_lora(source: Source, folder: Path, rank: int, say: Say) -> Approximation:
    """
    Write a plain LoRA of at most this rank, with the adapter's other files, and return how far it is from the adapter.

    Raises ``InvalidConfig`` for an adapter that changes anything but the weights of linear layers.
    """
    say("loading", 0.05)
    model = load_original(source, torch.float32)
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    adapted: Any = load_adapter(model, source.adapter)
    weights: dict[str, Tensor] = {}
    missing = total = 0.0
    worst: tuple[float, str | None] = (0.0, None)
    layers = list(_layers(adapted))
    for place, (name, layer) in enumerate(layers):
        say("converting", 0.2 + 0.7 * place / len(layers))
        change = _change(name, layer)
        up, down = low_rank(change, rank)
        weights[f"{PREFIX}{name}.lora_A.weight"] = down.contiguous()
        weights[f"{PREFIX}{name}.lora_B.weight"] = up.contiguous()
        left, all_of_it = float((change - up @ down).square().sum()), float(change.square().sum())
        missing, total = missing + left, total + all_of_it
        if all_of_it:
            worst = max(worst, (math.sqrt(left / all_of_it), name), key=lambda one: one[0])
    # One rank and one scale for all layers: some servers read no others, and scale wrongly without a word.
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=_targets([name for name, _ in layers], linear),
        task_type=TaskType.CAUSAL_LM,
        base_model_name_or_path=source.base,
        revision=source.revision if not Path(source.base).is_dir() else None,
        inference_mode=True,
    )
    copy_adapter(source, folder)
    config.save_pretrained(str(folder))
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    error = math.sqrt(missing / total) if total else 0.0
    return Approximation(error=error, worst_error=worst[0], worst_layer=worst[1], rank=rank)


def low_rank(change: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """
    Return the factors, outputs by rank and rank by inputs, whose product is closest to ``change``.

    What a small matrix has no use for is filled with zeros.
    """
    if min(change.shape) <= max(_WHOLE, 2 * (rank + _EXTRA)):
        left, values, right = torch.linalg.svd(change, full_matrices=False)
    else:
        torch.manual_seed(0)
        left, values, columns = torch.svd_lowrank(change, q=rank + _EXTRA, niter=_ROUNDS)
        right = columns.T
    root = values[:rank].sqrt()
    unused = max(0, rank - len(root))
    return pad(left[:, :rank] * root, (0, unused)), pad(root[:, None] * right[:rank], (0, 0, 0, unused))


def _layers(adapted: Any) -> Iterator[tuple[str, Any]]:
    """Yield the adapted layers by their names in the base model."""
    for name, module in adapted.base_model.model.named_modules():
        if isinstance(module, BaseTunerLayer):
            yield name, module
        elif isinstance(module, peft.utils.ModulesToSaveWrapper | peft.utils.TrainableTokensWrapper):
            raise _refused(name)


def _change(name: str, layer: Any) -> Tensor:
    """Return what an adapter adds to a layer's weight, outputs by inputs."""
    base: Any = layer.get_base_layer()
    if not isinstance(base, nn.Linear):
        raise _refused(name)
    weight, bias = base.weight.detach().clone(), _bias_of(base)
    with torch.no_grad():
        layer.merge(safe_merge=True)
    merged: Any = layer.get_base_layer()
    if bias is not None and not torch.equal(bias, merged.bias):
        raise _refused(f"{name}.bias")
    return merged.weight.detach() - weight


def _bias_of(layer: Any) -> Tensor | None:
    return None if layer.bias is None else layer.bias.detach().clone()


def _targets(names: list[str], linear: set[str]) -> list[str]:
    """Name the adapted layers by their last components where that names no others, else in full."""
    ends = {name.rsplit(".", 1)[-1] for name in names}
    others = {name for name in linear if name.rsplit(".", 1)[-1] in ends} - set(names)
    return sorted(names if others else ends)


def _refused(name: str) -> InvalidConfig:
    issue = f"it changes {name}, and a plain LoRA changes the weights of linear layers only; export it as merged"
    return InvalidConfig.of("format", issue)
