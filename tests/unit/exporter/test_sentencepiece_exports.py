"""Models whose tokenizer is a SentencePiece file alone: exported, and cut by llama.cpp as by SentencePiece."""

import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from transformers import AutoTokenizer

from peft_studio.exporter import llama_cpp
from peft_studio.exporter.make import make
from tests.tiny import sentence
from tests.unit.exporter.trained import adapter, base_model, quiet, task

TEXTS = ["the red cat sleeps", "  two spaces  before and behind ", "Größe, 你好\n\n\ttabs 12,345.67", "theredcat"]
TOKENIZER = {
    "tokenizer_class": "LlamaTokenizer",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "add_bos_token": True,
    "add_eos_token": False,
}


def trained(folder: Path, **options: Any) -> sentencepiece.SentencePieceProcessor:
    """Train SentencePiece with Llama 2's settings, and leave its file beside what transformers is told of it."""
    words, written = random.Random(0), io.BytesIO()
    settings: dict[str, Any] = {
        "model_type": "bpe",
        "vocab_size": 320,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "split_digits": True,
        "minloglevel": 2,
    }
    rows: Any = iter([sentence(words) for _ in range(200)])
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=rows, model_writer=written, **settings, **options)
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(written.getvalue())
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER))
    return sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())


@pytest.mark.parametrize("prefix", [True, False])
def test_llama_cpp_cuts_texts_as_sentencepiece_does(prefix: bool, tmp_path: Path) -> None:
    pieces = trained(tmp_path / "tokenizer", add_dummy_prefix=prefix)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer", add_prefix_space=prefix)
    base = base_model(tmp_path / "base", tokenizer=tokenizer, bos_token_id=1, eos_token_id=2)
    stored = adapter(tmp_path / "adapter", base)
    (out := tmp_path / "out").mkdir()
    result = make(task(base, stored, format="gguf", gguf_type="f32", name="tiny"), out, quiet)
    assert result.verification
    assert result.verification.same_tokens == result.verification.compared_tokens
    answer = llama_cpp.ask(llama_cpp.Question(str(out / "tiny.gguf"), TEXTS, True, [1], 1))
    assert answer.texts == [[1, *pieces.encode(text)] for text in TEXTS]
