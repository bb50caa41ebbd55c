"""Base model folders written by hand, in no time and without torch: enough to plan with, not to train."""

import json
import struct
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "max_position_embeddings": 128}
LAYER = {
    "self_attn.q_proj.weight": [8, 8],
    "self_attn.v_proj.weight": [4, 8],
    "mlp.down_proj.weight": [8, 16],
    "mlp.down_proj.bias": [8],
    "input_layernorm.weight": [8],
}
SHAPES = {
    "model.embed_tokens.weight": [50, 8],
    **{f"model.layers.{n}.{name}": shape for n in range(2) for name, shape in LAYER.items()},
    "lm_head.weight": [50, 8],
}
PARAMETERS = 2 * 400 + 2 * (64 + 32 + 128 + 8 + 8)
CARD = "---\nlicense: apache-2.0\ntags: [a]\n---\n# A model\n"


def write_weights(path: Path, shapes: dict[str, list[int]], fill: int = 0) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        size = 4
        for side in shape:
            size *= side
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    content = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(content)) + content + bytes([fill]) * end)


def write_model(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    (folder / "README.md").write_text(CARD)
    write_weights(folder / "model.safetensors", SHAPES)
    return folder


def split_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    names = list(SHAPES)
    parts = {"one.safetensors": names[:4], "two.safetensors": names[4:]}
    for file, tensors in parts.items():
        write_weights(folder / file, {name: SHAPES[name] for name in tensors})
    where = {name: file for file, tensors in parts.items() for name in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
