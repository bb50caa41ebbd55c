"""What a model answers: greedily, up to the end of the turn."""

import sys
from typing import Any

import torch

from peft_studio.trainer.model import Base
from peft_studio.trainer.render import Renderer

MAX_NEW_TOKENS = 96


def written(model: Any, base: Base, renderer: Renderer, text: str) -> str:
    """Go on greedily from a text that is laid out already, up to the end of the turn."""
    tokens = base.tokenizer(text, add_special_tokens=renderer.literal)["input_ids"]
    tokens = tokens[-max(1, base.longest(sys.maxsize) - MAX_NEW_TOKENS) :]
    prompt = torch.tensor([tokens], device=model.device)
    with torch.no_grad():
        output = model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            eos_token_id=stop_tokens(model, base, renderer),
            pad_token_id=base.end,
        )
    return base.tokenizer.decode(output[0, len(tokens) :], skip_special_tokens=True).strip()


def stop_tokens(model: Any, base: Base, renderer: Renderer) -> list[int]:
    """Every token that may end an answer: the model's own, and the one that ends a turn in the chat template."""
    known = model.generation_config.eos_token_id
    tokens = {base.end, *(known if isinstance(known, list) else [] if known is None else [known])}
    if (special := renderer.end_of_turn()) is not None:
        tokens.add(base.tokenizer.convert_tokens_to_ids(special))
    return sorted(tokens)
