"""Exports, made of tiny adapters and loaded by those they are meant for: stock transformers, llama.cpp, stock PEFT."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from peft_studio.errors import ExportFailed, InvalidConfig
from peft_studio.exporter.make import make, source_of
from peft_studio.exporter.merge import merge
from peft_studio.exporter.verify import verify_gguf
from peft_studio.exports import GgufType
from peft_studio.trainer.adapter import load_adapter
from tests.unit.exporter.trained import LLAMA3, adapter, base_model, logits, quiet, task

TOKENS = [0, 281, 299, 287, 298, 284, 17, 45]
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "rope_theta": 10000.0}


def adapted(base: Path, stored: Path) -> Any:
    return load_adapter(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), stored)


@pytest.mark.parametrize("algorithm", ["lora", "dora", "loha", "oft"])
def test_a_merged_model_is_loaded_by_transformers_and_gives_the_adapters_logits(algorithm: str, tmp_path: Path) -> None:
    base = base_model(tmp_path / "base")
    stored = adapter(tmp_path / "adapter", base, algorithm)
    (out := tmp_path / "out").mkdir()
    result = make(task(base, stored, algorithm, format="merged", weights="float32"), out, quiet)
    expected = logits(adapted(base, stored), TOKENS)
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(out), TOKENS), expected, atol=1e-4)
    assert not torch.allclose(logits(AutoModelForCausalLM.from_pretrained(base), TOKENS), expected, atol=0.1)
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(base).chat_template
    assert result.verification and result.verification.loader == "transformers"


def test_merged_weights_are_in_sixteen_bits_unless_more_are_asked_for(tmp_path: Path) -> None:
    base = base_model(tmp_path / "base")
    stored = adapter(tmp_path / "adapter", base)
    (out := tmp_path / "out").mkdir()
    make(task(base, stored, format="merged"), out, quiet)
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.dtype is torch.bfloat16
    expected = logits(adapted(base, stored), TOKENS)
    assert (logits(model, TOKENS) - expected).abs().max() < 0.1 * expected.std()


def test_an_adapter_is_not_merged_into_a_base_model_that_is_stored_quantized(tmp_path: Path) -> None:
    base = base_model(tmp_path / "base")
    stored = adapter(tmp_path / "adapter", base)
    settings = base / "config.json"
    settings.write_text(settings.read_text().replace("{", '{"quantization_config": {"load_in_4bit": true},', 1))
    with pytest.raises(InvalidConfig, match="stored quantized"):
        make(task(base, stored, format="merged"), tmp_path, quiet)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True, "attention_bias": True, "rope_parameters": LLAMA3}),
        ("mistral", {"head_dim": 32, "rope_parameters": YARN}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen3", {}),
        ("gemma3", {"query_pre_attn_scalar": 16, "tie_word_embeddings": False}),
    ],
)
def test_llama_cpp_writes_what_the_adapter_writes(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    base = base_model(tmp_path / "base", family, **changes)
    stored = adapter(tmp_path / "adapter", base)
    (out := tmp_path / "out").mkdir()
    result = make(task(base, stored, format="gguf", gguf_type="f32", name="tiny"), out, quiet)
    (written,) = out.iterdir()
    (file,) = result.files
    content = written.read_bytes()
    assert (file.name, file.size_bytes, file.sha256) == ("tiny.gguf", len(content), sha256(content).hexdigest())
    assert result.verification
    assert result.verification.same_tokens == result.verification.compared_tokens > 4


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0"])
def test_a_gguf_file_comes_in_the_number_format_that_is_asked_for(kind: str, tmp_path: Path) -> None:
    base = base_model(tmp_path / "base")
    stored = adapter(tmp_path / "adapter", base)
    (out := tmp_path / "out").mkdir()
    assert make(task(base, stored, format="gguf", gguf_type=kind, name="tiny"), out, quiet).verification
    read = gguf.GGUFReader(out / "tiny.gguf")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in read.tensors}
    assert kinds["blk.0.attn_q.weight"] == kind.upper()
    assert kinds["output_norm.weight"] == "F32"


def test_a_gguf_file_has_the_template_and_the_token_that_ends_an_answer(tmp_path: Path) -> None:
    base = base_model(tmp_path / "base")
    stored = adapter(tmp_path / "adapter", base)
    (out := tmp_path / "out").mkdir()
    make(task(base, stored, format="gguf", name="tiny"), out, quiet)
    fields = gguf.GGUFReader(out / "tiny.gguf").fields
    tokenizer = AutoTokenizer.from_pretrained(base)
    assert fields["tokenizer.chat_template"].contents() == tokenizer.chat_template
    assert fields["tokenizer.ggml.eot_token_id"].contents() == tokenizer.convert_tokens_to_ids("<|end|>")
    assert fields["tokenizer.ggml.eos_token_id"].contents() == tokenizer.eos_token_id


def test_a_file_that_writes_something_else_is_found_out(tmp_path: Path) -> None:
    base = base_model(tmp_path / "base")
    stored = adapter(tmp_path / "adapter", base)
    (out := tmp_path / "out").mkdir()
    make(task(base, stored, format="gguf", name="tiny"), out, quiet)
    other = adapter(tmp_path / "other", base, "loha", rank=8)
    merged = merge(source_of(task(base, other, format="gguf")), quiet)
    with pytest.raises(ExportFailed, match="another token at place"):
        verify_gguf(merged, out / "tiny.gguf", GgufType.F16)
    (out / "tiny.gguf").write_bytes(b"no model")
    with pytest.raises(ExportFailed, match="cannot load the file"):
        verify_gguf(merged, out / "tiny.gguf", GgufType.F16)
