"""Whether an export does what the model does that it was made from: asked of those who will load it."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from peft_studio.errors import ExportFailed
from peft_studio.exporter import llama_cpp
from peft_studio.exporter.merge import Merged
from peft_studio.exports import GgufType, Verification

TOKENS = 16
# Where two tokens are about equally likely, rounding decides. So far apart they may be to be taken for that: a share
# of the standard deviation of all logits at that place. Two bytes of mantissa decide little, eight bits a lot more.
_TIE = {GgufType.F32: 0.02, GgufType.F16: 0.05, GgufType.BF16: 0.15, GgufType.Q8_0: 0.3}
_TEXTS = (
    "It's 12,345.67 at 9 o'clock: don't  panic!",
    "def f(x):\n    return x ** 2  # squares\n\n\ttail   ",
    "Größe, naïve, 你好世界, привет, 🙂👍🏽",
)
_PROMPT = "Once upon a time there was a"


def verify_gguf(merged: Merged, path: Path, kind: GgufType, begins: bool | None = None) -> Verification | None:
    """
    Have llama.cpp cut texts into tokens and write greedily, and compare that with tokenizer and model.

    ``begins`` is what the file was written with; where that is not the tokenizer's own way it is not compared.
    Raises ``ExportFailed`` where they disagree by more than rounding explains; None where llama.cpp is not installed.
    """
    if not llama_cpp.is_installed():
        return None
    texts = [*_TEXTS, _rendered(merged.tokenizer)]
    prompt: list[int] = merged.tokenizer.encode(_PROMPT)
    whole = begins is None
    answer = llama_cpp.ask(llama_cpp.Question(str(path), texts, whole, prompt, TOKENS))
    for text, theirs in zip(texts, answer.texts, strict=True):
        if theirs != (ours := merged.tokenizer.encode(text, add_special_tokens=whole)):
            raise ExportFailed(f"llama.cpp cuts {text!r} into the tokens {theirs}, the tokenizer into {ours}.")
    same, margin, spread = _followed(merged.model, prompt, answer.written)
    if margin > _TIE[kind] * spread:
        raise ExportFailed(
            f"llama.cpp writes another token at place {same + 1}, which the model finds less likely by {margin:.3g}."
        )
    return Verification(
        loader=f"llama.cpp ({llama_cpp.BINDING})",
        compared_tokens=len(answer.written),
        same_tokens=same,
        margin=margin if same < len(answer.written) else None,
    )


def verify_merged(merged: Merged, folder: Path) -> Verification:
    """Load the written folder as anybody would, and compare its likeliest tokens with those of the merged model."""
    prompt: list[int] = merged.tokenizer.encode(_PROMPT)
    loaded: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype="auto").eval()
    with torch.inference_mode():
        ours = merged.model(torch.tensor([prompt])).logits[0].float()
        theirs = loaded(torch.tensor([prompt])).logits[0].float()
    if not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3):
        raise ExportFailed("The written model gives other logits than the one that was merged.")
    return Verification(loader="transformers", compared_tokens=len(prompt), same_tokens=len(prompt))


def _followed(model: Any, prompt: list[int], written: list[int]) -> tuple[int, float, float]:
    """
    Follow what was written through the model.

    Returns how many tokens are the model's own choice until the first that is not, by how many logits that one is
    less likely than the choice (0 where there is none), and the standard deviation of the logits there.
    """
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + written], device=model.device)).logits[0, len(prompt) - 1 : -1].float()
    for place, token in enumerate(written):
        best = int(logits[place].argmax())
        if best != token:
            return place, float(logits[place, best] - logits[place, token]), float(logits[place].std())
    return len(written), 0.0, 1.0


def _rendered(tokenizer: Any) -> str:
    """Return a conversation as the template writes it, without the token that the tokenizer adds by itself."""
    if not tokenizer.chat_template:
        return _PROMPT
    said = [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "A model."}]
    return tokenizer.apply_chat_template(said, tokenize=False).removeprefix(tokenizer.bos_token or "")
