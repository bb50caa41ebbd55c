"""
A tokenizer as llama.cpp's: its tokens, how text is cut before tokens are looked for, the template, where answers end.

llama.cpp knows tokenizers by name and not by their rules: one that cuts text in a way it has no name for would come
out as another one, without a word. Such a tokenizer is refused. The names and regular expressions are those of
llama.cpp's ``src/llama-vocab.cpp``.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gguf

from peft_studio.errors import InvalidConfig

Json = dict[str, Any]
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# How text is cut, in the order in which it is done -> llama.cpp's name for it.
_CUTS: Mapping[tuple[str, ...], str] = {
    ("gpt2",): "gpt-2",
    ("digits", "gpt2"): "smollm",
    (_LLAMA3,): "llama-bpe",
    (_LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}"),): "qwen2",
    (_TEKKEN,): "tekken",
}
_WHOLE_WORDS = {"llama-bpe", "tekken"}  # llama.cpp takes a text that is a token as it is, before it merges anything
_MERGED = {"llama-bpe": "dbrx"}  # the same cut, where that is not so, as in cl100k


@dataclass(frozen=True)
class Vocabulary:
    """What of a tokenizer goes into the file; ``merges`` is None for a SentencePiece one, which has ``scores``."""

    kind: str
    cut: str
    tokens: list[str]
    types: list[int]
    merges: list[str] | None = None
    scores: list[float] | None = None
    leading_space: bool = False


def vocabulary_of(tokenizer: Any, rows: int) -> Vocabulary:
    """Read a tokenizer for a model with so many embeddings; raises ``InvalidConfig`` for one llama.cpp lacks."""
    content: Json = json.loads(tokenizer.backend_tokenizer.to_str())
    model: Json = content["model"]
    if model.get("type") != "BPE" or model.get("dropout") or model.get("continuing_subword_prefix"):
        raise _refused(f"llama.cpp's BPE cannot stand in for a tokenizer of the kind {model.get('type')}")
    tokens, types = _tokens(content, rows)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    if model.get("byte_fallback"):
        types = [_byte(token, kind) for token, kind in zip(tokens, types, strict=True)]
        scores = _scores(tokens, [merge if isinstance(merge, list) else merge.split(" ") for merge in model["merges"]])
        return Vocabulary("llama", "default", tokens, types, None, scores, _metaspace(content))
    cut = _CUTS.get(tuple(_steps(content.get("pre_tokenizer"))))
    if cut in _MERGED and not model.get("ignore_merges"):
        cut = _MERGED[cut]
    if cut is None or (cut in _WHOLE_WORDS) != bool(model.get("ignore_merges")):
        raise _refused("llama.cpp has no name for the way in which this tokenizer cuts text into words")
    if (content.get("normalizer") or {"type": "NFC"})["type"] != "NFC":
        raise _refused(f"llama.cpp does not do what the tokenizer's normalizer does ({content['normalizer']['type']})")
    return Vocabulary("gpt2", cut, tokens, types, merges)


def write_tokenizer(
    writer: gguf.GGUFWriter, tokenizer: Any, rows: int, turn_end: str | None, begins: bool | None = None
) -> None:
    """
    Write tokens, chat template and the tokens that end an answer.

    ``turn_end`` is what the chat template puts behind an answer: generation stops there as it does at the text's end.
    ``begins``: whether the beginning token is put before every text; by default as the tokenizer does.
    """
    vocabulary = vocabulary_of(tokenizer, rows)
    writer.add_tokenizer_model(vocabulary.kind)
    writer.add_tokenizer_pre(vocabulary.cut)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.merges is not None:
        writer.add_token_merges(vocabulary.merges)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.leading_space)
    for number, write in (
        (tokenizer.bos_token_id, writer.add_bos_token_id),
        (tokenizer.eos_token_id, writer.add_eos_token_id),
        (tokenizer.unk_token_id, writer.add_unk_token_id),
        (tokenizer.pad_token_id, writer.add_pad_token_id),
        (tokenizer.convert_tokens_to_ids(turn_end) if turn_end else None, writer.add_eot_token_id),
    ):
        if number is not None:
            write(number)
    first, ends = _added_by(tokenizer)
    writer.add_add_bos_token(first if begins is None else begins)
    writer.add_add_eos_token(ends)
    if template := tokenizer.chat_template:
        writer.add_chat_template(template)


def _tokens(content: Json, rows: int) -> tuple[list[str], list[int]]:
    by_number: dict[int, tuple[str, int]] = {
        number: (token, gguf.TokenType.NORMAL) for token, number in content["model"]["vocab"].items()
    }
    unknown = content["model"].get("unk_token")
    for added in content["added_tokens"]:
        kind = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        by_number[added["id"]] = added["content"], gguf.TokenType.UNKNOWN if added["content"] == unknown else kind
    if by_number and max(by_number) >= rows:
        raise _refused(f"the tokenizer has {max(by_number) + 1} tokens, the model knows {rows}")
    # Models are often given more rows than there are tokens, for the sake of round sizes.
    found = [by_number.get(number, (f"[PAD{number}]", gguf.TokenType.UNUSED)) for number in range(rows)]
    return [token for token, _ in found], [int(kind) for _, kind in found]


def _steps(cutter: Json | None) -> list[str]:
    """Name a pre-tokenizer's steps: a regular expression by itself; an unknown one by a name that is in no table."""
    match cutter:
        case {"type": "Sequence", "pretokenizers": parts}:
            return [step for part in parts for step in _steps(part)]
        case {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}:
            return [regex]
        case {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Removed", "invert": True}:
            return [regex]  # what it does not match is dropped, and those that have a name match everything
        case {"type": "Digits", "individual_digits": True}:
            return ["digits"]
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": uses}:
            return ["gpt2"] if uses else []
        case {"type": kind}:
            return [f"unknown: {kind}"]
        case _:
            return ["unknown"]


def _byte(token: str, kind: int) -> int:
    is_byte = len(token) == 6 and token.startswith("<0x") and token.endswith(">")
    return int(gguf.TokenType.BYTE) if is_byte else kind


def _scores(tokens: list[str], merges: list[list[str]]) -> list[float]:
    """Give each token the place of the merge that makes it: SentencePiece merges what has the best score first."""
    order: dict[str, int] = {}
    for place, (left, right) in enumerate(merges):
        order.setdefault(left + right, place)
    return [-float(order[token]) if token in order else -1e6 for token in tokens]


def _metaspace(content: Json) -> bool:
    """Tell whether a space is put before a text; raises ``InvalidConfig`` for other rules than SentencePiece's."""
    match content.get("normalizer"), content.get("pre_tokenizer"):
        case {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, replace]}, None:
            if replace.get("content") == "\u2581":
                return True
        case {"type": "Replace", "content": "\u2581"}, _:
            return False
        case None, {"type": "Metaspace", "prepend_scheme": "first" | "always", "split": False}:
            return True
        case None, {"type": "Metaspace", "prepend_scheme": "never", "split": False}:
            return False
        case _:
            pass
    raise _refused("llama.cpp's SentencePiece does not treat spaces as this tokenizer does")


def _added_by(tokenizer: Any) -> tuple[bool, bool]:
    """Look whether the tokenizer puts a token before every text, and one behind it."""
    plain = tokenizer.encode("a", add_special_tokens=False)
    whole = tokenizer.encode("a", add_special_tokens=True)
    before = whole.index(plain[0])
    extra = [*whole[:before], *whole[before + len(plain) :]]
    begins = whole[:before] == [tokenizer.bos_token_id]
    ends = whole[before + len(plain) :] == [tokenizer.eos_token_id]
    if len(extra) != begins + ends:
        raise _refused("llama.cpp puts no other tokens around a text than its first and its last")
    return begins, ends


def _refused(issue: str) -> InvalidConfig:
    return InvalidConfig.of("format", issue)
