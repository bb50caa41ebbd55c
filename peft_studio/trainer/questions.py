"""Rows as questions: what both models are asked in an evaluation, and the answers that are right."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from peft_studio.datasets import Example
from peft_studio.row_formats import RowFormat
from peft_studio.trainer.answers import stop_tokens
from peft_studio.trainer.evaluating import evaluating
from peft_studio.trainer.model import Base
from peft_studio.trainer.render import Renderer
from peft_studio.trainer.sampling import Tokens, asking, padded, until
from peft_studio.trainer.stop import StopSignal


@dataclass(frozen=True)
class Question:
    """A row's question as people read it and as the model does, and the row's own answer."""

    asked: str
    ids: Tokens
    reference: str


def questions_of(
    examples: Iterable[Example], base: Base, renderer: Renderer, count: int, max_new_tokens: int
) -> list[Question]:
    """Return the first ``count`` rows that have an answer of their own; of a long question the end is kept."""
    room = max(1, base.longest(sys.maxsize) - max_new_tokens)
    found: list[Question] = []
    for example, reference in islice(_answered(examples), count):
        text, asked = renderer.prompt(example)
        ids = base.tokenizer(text, add_special_tokens=renderer.literal)["input_ids"][-room:]
        found.append(Question(asked, np.array(ids, dtype=np.int64), reference))
    return [question for question in found if len(question.ids)]


def answers_of(
    model: Any,
    base: Base,
    renderer: Renderer,
    questions: Sequence[Question],
    max_new_tokens: int,
    batch_size: int,
    stop: StopSignal,
) -> list[str]:
    """
    Answer greedily, as many questions at a time as ``batch_size`` says, in the order of the questions.

    Raises ``Stopped`` between two tokens where a stop is asked for.
    """
    if not questions:  # a model that writes no text is asked none
        return []
    stops = stop_tokens(model, base, renderer)
    answers = [""] * len(questions)
    order = sorted(range(len(questions)), key=lambda place: len(questions[place].ids))
    with evaluating(model):
        for start in range(0, len(order), batch_size):
            some = order[start : start + batch_size]
            prompts = [questions[place].ids for place in some]
            for place, tokens in zip(some, _go_on(model, base, prompts, stops, max_new_tokens, stop), strict=True):
                answers[place] = base.tokenizer.decode(tokens, skip_special_tokens=True).strip()
    return answers


def _go_on(
    model: Any, base: Base, prompts: Sequence[Tokens], stops: Sequence[int], max_new_tokens: int, stop: StopSignal
) -> list[Tokens]:
    ids, seen = padded(prompts, base.end)
    output = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=seen.to(model.device),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        stopping_criteria=asking(stop),
        eos_token_id=list(stops),
        pad_token_id=base.end,
        use_cache=True,
    )
    return [until(row, stops) for row in output[:, ids.shape[1] :].cpu().numpy()]


def _answered(examples: Iterable[Example]) -> Iterator[tuple[Example, str]]:
    for example in examples:
        if reference := reference_of(example):
            yield example.texts[0], reference


def reference_of(example: Example) -> str:
    """Return a row's own answer: the first to be given, or the one that was chosen; empty where it has none."""
    if example.label is False:  # an answer that was found to be bad
        return ""
    text = example.texts[0]
    if text.format is RowFormat.MESSAGES:
        turns = (turn for turn in text.messages[text.given :] if turn.role == "assistant")
        answer = next(turns, None)
        return answer.content.strip() if answer and answer.is_learnt and not answer.tool_calls else ""
    if text.format in (RowFormat.INSTRUCTION, RowFormat.PROMPT_COMPLETION):
        return text.completion.strip()
    return ""
