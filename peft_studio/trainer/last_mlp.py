"""
The last MLP on those tokens alone behind which something is predicted: what it gives for others nobody looks at.

Behind it models have nothing that mixes tokens, which is tried out.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from peft_studio.trainer.evaluating import evaluating

TRIED = 8  # tokens
_asked: list[tuple[torch.Size, torch.Tensor]] = []  # of the batch that is being computed: its shape, and places in it


@contextmanager
def asked_for(shape: torch.Size, places: torch.Tensor) -> Generator[None]:
    """Say of which places of a batch (rows, tokens) something is predicted, by number from 0 to rows times tokens."""
    _asked[:] = [(shape, places)]
    try:
        yield
    finally:
        _asked.clear()


def narrow_last_mlp(model: Any) -> bool:
    """Have a language model's last MLP leave out what nobody asks for; tell whether it can."""
    mlps = [module for name, module in model.named_modules() if name.rsplit(".", 1)[-1] == "mlp"]
    if not mlps or not _stands_alone(model, mlps[-1]):
        return False
    mlps[-1].register_forward_pre_hook(_take)
    mlps[-1].register_forward_hook(_put)
    return True


def _take(_: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
    for shape, places in _asked:
        if inputs[0].shape[:-1] == shape:
            return (inputs[0].flatten(0, 1).index_select(0, places)[None],)
    return None


def _put(_: nn.Module, inputs: tuple[torch.Tensor], result: torch.Tensor) -> torch.Tensor | None:
    for shape, places in _asked:
        if result.shape[:-1] == (1, len(places)) != shape:
            everywhere = result.new_zeros(shape.numel(), result.shape[-1])
            return everywhere.index_copy(0, places, result[0]).unflatten(0, shape)
    return None


def _stands_alone(model: Any, mlp: nn.Module) -> bool:
    """Whether a token's logits are the same whatever the MLP, which takes hidden states alone, gives for others."""
    ids = torch.arange(TRIED, device=model.device)[None] % model.config.get_text_config().vocab_size
    plain_in_and_out: list[bool] = []

    def stir(_: nn.Module, inputs: tuple[Any, ...], result: Any) -> Any:
        plain_in_and_out.append([getattr(x, "shape", None) for x in inputs] == [getattr(result, "shape", ())])
        if not plain_in_and_out[-1]:
            return result
        noise = torch.ones_like(result)
        noise[:, -1] = 0
        return result + noise

    with evaluating(model):
        plain = model(input_ids=ids, use_cache=False).logits[:, -1]
        hook = mlp.register_forward_hook(stir)
        try:
            stirred = model(input_ids=ids, use_cache=False).logits[:, -1]
        finally:
            hook.remove()
    return plain_in_and_out == [True] and torch.equal(stirred, plain)
