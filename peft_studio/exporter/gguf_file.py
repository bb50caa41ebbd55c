"""Writing a model as one GGUF file, a block of a tensor at a time: nothing more of the model is in memory twice."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor

from peft_studio.exporter.blocks import narrowed, one_thread, rows_at_once
from peft_studio.exporter.chat_format import turn_end
from peft_studio.exporter.gguf_models import architecture_of, describe, tensors
from peft_studio.exporter.gguf_tokens import write_tokenizer
from peft_studio.exporter.merge import Merged
from peft_studio.exports import GgufType
from peft_studio.hashed_file import HashedOutput

Kind = gguf.GGMLQuantizationType
_KINDS = {
    GgufType.F32: (Kind.F32, gguf.LlamaFileType.ALL_F32),
    GgufType.F16: (Kind.F16, gguf.LlamaFileType.MOSTLY_F16),
    GgufType.BF16: (Kind.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    GgufType.Q8_0: (Kind.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
_FLOATS = {Kind.F32: torch.float32, Kind.F16: torch.float16, Kind.BF16: torch.bfloat16}
_Q8_BLOCK = 32


def write_gguf(merged: Merged, path: Path, kind: GgufType, name: str, begins: bool | None = None) -> str:
    """
    Write a merged model with its tokenizer, chat template and stop tokens; return the file's SHA-256.

    ``begins``: whether the beginning token is put before every text; by default as the tokenizer does.
    Raises ``InvalidConfig`` for an architecture or a tokenizer that llama.cpp does not know, before much is written.
    """
    config: Any = merged.model.config
    known = architecture_of(config)
    matrices, file_type = _KINDS[kind]
    writer = gguf.GGUFWriter(str(path), gguf.MODEL_ARCH_NAMES[known.arch])
    try:
        writer.add_name(name)
        writer.add_file_type(file_type)
        describe(writer, config)
        write_tokenizer(writer, merged.tokenizer, config.vocab_size, turn_end(merged.tokenizer), begins)
        found = [(theirs, tensor, rows, _kind_of(tensor, matrices)) for theirs, tensor, rows in tensors(merged.model)]
        for theirs, tensor, _, stored in found:
            _announce(writer, theirs, tensor, stored)
        writer.open_output_file()
        file: Any = HashedOutput(writer.fout[0])  # pyright: ignore[reportOptionalSubscript, reportArgumentType]
        writer.fout = [file]
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        with one_thread():
            for _, _, rows, stored in found:
                writer.write_padding(file, file.tell())
                for piece in _pieces(rows, stored):
                    file.write(piece)
        writer.write_padding(file, file.tell())
        return file.sha256
    finally:
        writer.close()


def _kind_of(tensor: Tensor, matrices: Kind) -> Kind:
    """Say how a tensor is stored: vectors in 32 bits, and what does not come in whole blocks in 16."""
    if tensor.dim() == 1:
        return Kind.F32
    return Kind.F16 if matrices is Kind.Q8_0 and tensor.shape[-1] % _Q8_BLOCK else matrices


def _announce(writer: gguf.GGUFWriter, name: str, tensor: Tensor, kind: Kind) -> None:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    if kind in (Kind.F32, Kind.F16):
        dtype = np.dtype(np.float32 if kind is Kind.F32 else np.float16)
        writer.add_tensor_info(name, list(tensor.shape), dtype, tensor.numel() * size)
        return
    in_bytes = [*tensor.shape[:-1], tensor.shape[-1] // block * size]
    writer.add_tensor_info(name, in_bytes, np.dtype(np.uint8), tensor.numel() // block * size, raw_dtype=kind)


def _pieces(tensor: Tensor, kind: Kind) -> Iterator[memoryview]:
    """Yield a tensor's content block by block, as the bytes that are written."""
    for block in tensor.detach().split(rows_at_once(tensor)):
        numbers = narrowed(block.to("cpu"), _FLOATS.get(kind, torch.float32)).contiguous()
        stored: Any = (
            numbers.view(torch.uint8).numpy() if kind in _FLOATS else gguf.quants.quantize(numbers.numpy(), kind)
        )
        yield memoryview(stored).cast("B")
