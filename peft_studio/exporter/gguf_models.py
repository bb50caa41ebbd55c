"""
The architectures that are written as GGUF: what llama.cpp calls their sizes and tensors, and how it lays them out.

Names and keys are those of the ``gguf`` package, which is llama.cpp's own; what they mean is described in
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gguf
import torch
from torch import Tensor

from peft_studio.errors import InvalidConfig


@dataclass(frozen=True)
class Architecture:
    """How one of transformers' classes is called by llama.cpp; ``interleaved``: its rotary pairs lie side by side."""

    arch: gguf.MODEL_ARCH
    interleaved: bool = False


ARCHITECTURES: Mapping[str, Architecture] = {
    "LlamaForCausalLM": Architecture(gguf.MODEL_ARCH.LLAMA, interleaved=True),
    "MistralForCausalLM": Architecture(gguf.MODEL_ARCH.LLAMA, interleaved=True),
    "Qwen2ForCausalLM": Architecture(gguf.MODEL_ARCH.QWEN2),
    "Qwen3ForCausalLM": Architecture(gguf.MODEL_ARCH.QWEN3),
}
_ROPE_SCALING = {"linear": gguf.RopeScalingType.LINEAR, "yarn": gguf.RopeScalingType.YARN}


def architecture_of(config: Any) -> Architecture:
    """Return the row of a model's configuration; raises ``InvalidConfig`` for one that cannot be written."""
    name = (getattr(config, "architectures", None) or [type(config).__name__])[0]
    if (found := ARCHITECTURES.get(name)) is None:
        raise _refused(f"{name} is not among the architectures that are written as GGUF: {', '.join(ARCHITECTURES)}")
    if config.hidden_act != "silu":
        raise _refused(f"llama.cpp knows {name} with silu, this model has {config.hidden_act}")
    return found


def describe(writer: gguf.GGUFWriter, config: Any) -> None:
    """Write a model's sizes and constants; raises ``InvalidConfig`` for a rotary scaling that llama.cpp lacks."""
    head = head_size(config)
    # llama.cpp attends to everything in these architectures: further than the window the model was not made for.
    slides = getattr(config, "use_sliding_window", True) and getattr(config, "sliding_window", None)
    longest = config.max_position_embeddings
    writer.add_context_length(min(longest, config.sliding_window) if slides else longest)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head)
    writer.add_vocab_size(config.vocab_size)
    rope = _rope(config)
    writer.add_rope_freq_base(rope.get("rope_theta", 10_000.0))
    kind = rope.get("rope_type", "default")
    if kind in _ROPE_SCALING:
        writer.add_rope_scaling_type(_ROPE_SCALING[kind])
        writer.add_rope_scaling_factor(rope["factor"])
        if original := rope.get("original_max_position_embeddings"):
            writer.add_rope_scaling_orig_ctx_len(original)
    elif kind not in ("default", "llama3"):
        raise _refused(f"llama.cpp has no rotary scaling {kind!r} for this architecture")


def tensors(model: Any) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield a model's tensors: llama.cpp's name, the tensor, and its rows in llama.cpp's order, a view of it."""
    config = model.config
    known = architecture_of(config)
    names = gguf.get_tensor_name_map(known.arch, config.num_hidden_layers)
    if (factors := _rope_factors(config)) is not None:
        yield "rope_freqs.weight", factors, factors
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if (theirs := names.get_name(name, try_suffixes=(".weight", ".bias"))) is None:
            raise _refused(f"llama.cpp has no place for the model's tensor {name}")
        layer = name.rsplit(".", 2)[-2]
        yield theirs, tensor, _side_by_side(tensor, heads[layer]) if known.interleaved and layer in heads else tensor


def head_size(config: Any) -> int:
    """Return the size of one attention head."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _side_by_side(tensor: Tensor, heads: int) -> Tensor:
    """Turn each head's two halves (transformers' rotary pairs) into neighbours (llama.cpp's)."""
    return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).transpose(1, 2)


def _rope(config: Any) -> Mapping[str, Any]:
    return getattr(config, "rope_parameters", None) or {"rope_theta": getattr(config, "rope_theta", 10_000.0)}


def _rope_factors(config: Any) -> Tensor | None:
    """Return what each rotary frequency is divided by in Llama 3.1's scaling (transformers' ``rope_type`` llama3)."""
    rope = _rope(config)
    if rope.get("rope_type") != "llama3":
        return None
    size, base, factor = head_size(config), rope["rope_theta"], rope["factor"]
    low, high, original = rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]
    waves = 2 * math.pi * base ** (torch.arange(0, size, 2, dtype=torch.float64) / size)
    smooth = ((original / waves - low) / (high - low)).clamp(0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).float()


def _refused(issue: str) -> InvalidConfig:
    return InvalidConfig(f"format: {issue}", field="format", issue=issue)
