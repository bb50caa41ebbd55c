"""Tokenizers of every cut that llama.cpp has a name for: it has to cut texts as the tokenizer's own library does."""

import random
from pathlib import Path
from typing import Any

import gguf
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from peft_studio.errors import InvalidConfig
from peft_studio.exporter import llama_cpp
from peft_studio.exporter.gguf_file import write_gguf
from peft_studio.exporter.gguf_tokens import vocabulary_of
from peft_studio.exporter.merge import Merged
from peft_studio.exports import GgufType
from tests.tiny import sentence
from tests.unit.exporter.test_gguf_architectures import model

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
TEXTS = [
    "the red cat sleeps, THE CAT'S house: 12345.67",
    "  two   spaces\n\n\tand tabs  ",
    "don't I'LL we've\r\n\r\nGröße, 你好, 🙂!!! x=/y//",
]


def trained(cutter: Any, whole_words: bool) -> PreTrainedTokenizerFast:
    """A tokenizer with this cut, trained on few words and their endings."""
    words = random.Random(0)
    tokenizer = Tokenizer(models.BPE(ignore_merges=whole_words))
    tokenizer.pre_tokenizer = cutter  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=420, show_progress=False, special_tokens=special, initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator([sentence(words) + " 123 12 don't I'll\n\n" for _ in range(50)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def cutting(regex: str, behavior: str = "isolated") -> Any:
    split = pre_tokenizers.Split(Regex(regex), behavior, invert=behavior == "removed")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def digits_first() -> Any:
    by_words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), by_words])


@pytest.mark.parametrize(
    ("name", "cutter", "whole_words"),
    [
        ("smollm", digits_first(), False),
        ("llama-bpe", cutting(LLAMA3), True),
        ("dbrx", cutting(LLAMA3, "removed"), False),
        ("qwen2", cutting(LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")), False),
    ],
)
def test_llama_cpp_cuts_texts_as_the_tokenizer_does(name: str, cutter: Any, whole_words: bool, tmp_path: Path) -> None:
    tokenizer = trained(cutter, whole_words)
    path = tmp_path / "tiny.gguf"
    write_gguf(Merged(model("llama", vocab_size=len(tokenizer)), tokenizer), path, GgufType.F32, "tiny")
    assert gguf.GGUFReader(path).fields["tokenizer.ggml.pre"].contents() == name
    answer = llama_cpp.ask(llama_cpp.Question(str(path), TEXTS, False, [0], 1))
    assert answer.texts == [tokenizer.encode(text) for text in TEXTS]


def test_a_cut_that_llama_cpp_has_no_name_for_is_refused() -> None:
    tokenizer = trained(cutting(LLAMA3.replace("{1,3}", "{1,2}")), False)
    with pytest.raises(InvalidConfig, match="no name for the way"):
        vocabulary_of(tokenizer, len(tokenizer))
