"""Adapters' files written by hand, in no time and without torch, for the models of ``tests/model_folders.py``."""

import json
import struct
from pathlib import Path
from typing import Any

PREFIX = "base_model.model.model.layers"
LAYERS = {"self_attn.q_proj": (8, 8), "self_attn.v_proj": (8, 4)}  # inputs, outputs


def shapes(rank: int = 2, layers: int = 2, *, dora: bool = False) -> dict[str, list[int]]:
    """The tensors of a LoRA on two of the linear layers of ``model_folders.SHAPES``."""
    found: dict[str, list[int]] = {}
    for number in range(layers):
        for name, (inputs, outputs) in LAYERS.items():
            layer = f"{PREFIX}.{number}.{name}"
            found[f"{layer}.lora_A.weight"] = [rank, inputs]
            found[f"{layer}.lora_B.weight"] = [outputs, rank]
            if dora:
                found[f"{layer}.lora_magnitude_vector"] = [outputs]
    return found


def header_of(tensors: dict[str, list[int]], dtype: str = "F32", width: int = 4) -> tuple[dict[str, Any], int]:
    """A truthful header, and how many bytes of data it asks for."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors.items():
        size = width
        for side in shape:
            size *= side
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    return header, end


def packed(header: Any, data: bytes) -> bytes:
    """A file with this header, whatever it says."""
    content = json.dumps(header).encode()
    return struct.pack("<Q", len(content)) + content + data


def weights(tensors: dict[str, list[int]] | None = None, **settings: Any) -> bytes:
    """A whole file of zeros."""
    header, size = header_of(tensors or shapes(), **settings)
    return packed(header, bytes(size))


def write_adapter(path: Path, tensors: dict[str, list[int]] | None = None) -> Path:
    path.write_bytes(weights(tensors))
    return path
