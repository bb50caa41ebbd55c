"""
A model as GGUF has it: what llama.cpp calls its sizes and tensors, and how it lays them out.

Names and keys are those of the ``gguf`` package, which is llama.cpp's own; what they mean is described in
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import gguf
import torch
from torch import Tensor

from peft_studio.exporter.gguf_architectures import Architecture, architecture_of, head_size, refused

_SCALINGS: Mapping[str, gguf.RopeScalingType] = {
    "linear": gguf.RopeScalingType.LINEAR,
    "yarn": gguf.RopeScalingType.YARN,
}
# What is said of rotary positions and written; of the rest the only value that llama.cpp computes with.
_WRITTEN = {"rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings"}
_LLAMA3 = {"low_freq_factor", "high_freq_factor"}
_FIXED: Mapping[str, float] = {"beta_fast": 32, "beta_slow": 1, "partial_rotary_factor": 1}


def describe(writer: gguf.GGUFWriter, config: Any) -> None:
    """Write a model's sizes and constants; raises ``InvalidConfig`` where llama.cpp would compute with others."""
    known = architecture_of(config)
    head = head_size(config)
    longest = config.max_position_embeddings
    window = getattr(config, "use_sliding_window", True) and getattr(config, "sliding_window", None)
    if window and known.whole_every:
        writer.add_sliding_window(window)
    elif window:
        longest = min(longest, window)  # llama.cpp attends to everything here: the model was made for no further
    writer.add_context_length(longest)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    _describe_positions(writer, config, known)
    if known.own:
        known.own(writer, config)


def tensors(model: Any) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield a model's tensors: llama.cpp's name, the tensor, and its rows as llama.cpp has them."""
    config = model.config
    known = architecture_of(config)
    names = gguf.get_tensor_name_map(known.arch, config.num_hidden_layers)
    if (factors := _rope_factors(config)) is not None:
        yield "rope_freqs.weight", factors, factors
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    suffixes = (".weight", ".bias") if known.biases else (".weight",)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if (theirs := names.get_name(name, try_suffixes=suffixes)) is None:
            raise refused(f"llama.cpp has no place for the model's tensor {name}")
        layer = name.rsplit(".", 2)[-2]
        rows = _side_by_side(tensor, heads[layer]) if known.interleaved and layer in heads else tensor
        yield theirs, tensor, rows.float() + 1 if known.adds_one and layer.endswith("norm") else rows


def _describe_positions(writer: gguf.GGUFWriter, config: Any, known: Architecture) -> None:
    rope = _rope(config)
    kind = rope.get("rope_type", "default")
    if kind not in (*_SCALINGS, "default") and not (kind == "llama3" and known.divides):
        raise refused(f"llama.cpp has no rotary scaling {kind!r} for this architecture")
    turned = rope.get("partial_rotary_factor", 1) if known.turns_some else 1
    fixed = {**_FIXED, "partial_rotary_factor": turned}
    for name in rope.keys() - _WRITTEN - (_LLAMA3 if kind == "llama3" else set()):
        if rope[name] not in (None, fixed.get(name)):
            raise refused(f"llama.cpp knows no {name} of {rope[name]} for the rotary positions of this architecture")
    writer.add_rope_dimension_count(int(head_size(config) * turned))
    writer.add_rope_freq_base(rope.get("rope_theta", 10_000.0))
    if kind in _SCALINGS:
        writer.add_rope_scaling_type(_SCALINGS[kind])
        writer.add_rope_scaling_factor(rope["factor"])
        if original := rope.get("original_max_position_embeddings"):
            writer.add_rope_scaling_orig_ctx_len(original)


def _side_by_side(tensor: Tensor, heads: int) -> Tensor:
    """Turn each head's two halves (transformers' rotary pairs) into neighbours (llama.cpp's)."""
    return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).transpose(1, 2)


def _rope(config: Any) -> Mapping[str, Any]:
    """Return what is said of rotary positions; where layers differ, of those that attend to everything."""
    said: Mapping[str, Any] = getattr(config, "rope_parameters", None) or {
        "rope_theta": getattr(config, "rope_theta", 10_000.0)
    }
    return said.get("full_attention", said)


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
