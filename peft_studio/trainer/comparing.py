"""A base model and an adapter on the same rows: what each makes of them, and what comes of the two."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peft_studio.config import TrainingConfig
from peft_studio.datasets import Example
from peft_studio.evaluation.bootstrap import compare, without_interval
from peft_studio.evaluation.comparison import (
    OF_ROWS,
    Bootstrap,
    EvaluationConfig,
    Generation,
    Measure,
    ModelComparison,
)
from peft_studio.evaluation.texts import measure_texts
from peft_studio.jobs import Answer, Evaluation, HeldOut
from peft_studio.trainer.adapter import load_adapter
from peft_studio.trainer.data import Item, fitted, supervised_of, tokens_of
from peft_studio.trainer.loss import RowQualities
from peft_studio.trainer.model import Base, load_base
from peft_studio.trainer.objectives.criterion import Criterion
from peft_studio.trainer.products import fast_products
from peft_studio.trainer.questions import Question, answers_of, questions_of
from peft_studio.trainer.render import Renderer
from peft_studio.trainer.stop import StopSignal

Extra = Callable[[Any], Any]


@dataclass(frozen=True)
class Subject:
    """An adapter, its base model, and how both read rows."""

    config: TrainingConfig
    base: Base
    criterion: Criterion[Any]
    renderer: Renderer
    adapter: Path
    stop: StopSignal

    @property
    def limit(self) -> int:
        """The longest row, in tokens."""
        return self.base.longest(self.config.max_length, self.config.virtual_tokens)


@dataclass(frozen=True)
class Seen:
    """What one model made of the rows: how well it does on them, row by row too, and what it wrote."""

    held_out: HeldOut | None
    rows: RowQualities | None
    answers: list[str]
    shown: tuple[str, str] | None
    extra: Any


@dataclass(frozen=True)
class Compared:
    """What came of both models."""

    evaluation: Evaluation
    questions: list[Question]
    base: Seen
    adapter: Seen


def compare_models(
    subject: Subject,
    examples: Sequence[Example],
    prompt: str | Example,
    wanted: EvaluationConfig,
    extra: Extra = lambda _: None,
    turn: Callable[[], None] = lambda: None,
) -> Compared:
    """
    Measure the base model on rows, then the same with the adapter on it, as stock PEFT loads it.

    ``prompt`` is answered to be shown. ``extra`` is asked about either model while it is loaded, ``turn`` called
    before each. Raises ``Stopped`` where a stop is asked for.
    """
    config, base, criterion, stop = subject.config, subject.base, subject.criterion, subject.stop
    items, owners = _items(subject, examples)
    count = wanted.generation_rows if config.aim.writes else 0
    questions = questions_of(examples, base, subject.renderer, count, wanted.max_new_tokens)

    def look(model: Any, items: Sequence[Item]) -> Seen:
        turn()
        held_out, row_by_row = measure(model, criterion, items, config, stop)
        return Seen(
            held_out=held_out,
            rows=row_by_row.together(owners) if row_by_row else None,
            answers=answers_of(
                model, base, subject.renderer, questions, wanted.max_new_tokens, config.batch_size, stop
            ),
            shown=criterion.answer(model, subject.renderer, prompt, subject.limit),
            extra=extra(model),
        )

    before, after = _by_both(subject, items, look)
    cut = sum(len(base.tokenizer(question.reference)["input_ids"]) > wanted.max_new_tokens for question in questions)
    generation = Generation(rows=len(questions), max_new_tokens=wanted.max_new_tokens, cut=cut) if questions else None
    evaluation = Evaluation(
        held_out_rows=(rows := len(np.unique(owners))),
        base=before.held_out,
        adapter=after.held_out,
        answer=_shown(before.shown, after.shown),
        comparison=_by_rows(before, after, rows, wanted.bootstrap)
        | _by_answers(questions, before, after, wanted.bootstrap),
        generation=generation,
        bootstrap=wanted.bootstrap if items else None,
    )
    return Compared(evaluation, questions, before, after)


def _by_both(subject: Subject, items: Sequence[Item], look: Callable[[Any, Sequence[Item]], Seen]) -> tuple[Seen, Seen]:
    """Look at the base model, and at the same with the adapter on it: what is compared is multiplied alike."""
    config, stop = subject.config, subject.stop
    with fast_products(config.fast_kernels, width=subject.base.width):
        stop.check()
        bare = load_base(subject.base, config, "all" if config.shard_base else "device")
        items = subject.criterion.with_reference(bare, items, stop)
        before = look(bare, items)
        stop.check()
        return before, look(load_adapter(bare, subject.adapter), items)


def _items(subject: Subject, examples: Sequence[Example]) -> tuple[Sequence[Item], NDArray[np.int64]]:
    """Tokenize rows; say of each item which row, by number from 0, it is a part of: a long one may be several."""
    config, criterion = subject.config, subject.criterion
    if not criterion.streams:
        items = criterion.encode(examples, subject.renderer, subject.limit).rows
        return items, np.arange(len(items))
    parts = list(fitted(examples, subject.base, subject.renderer, subject.limit, config.long_rows))
    return [row for part in parts for row in part.rows], np.repeat(
        np.arange(len(parts)), [len(part.rows) for part in parts]
    )


def measure(
    model: Any, criterion: Criterion[Any], items: Sequence[Item], config: TrainingConfig, stop: StopSignal
) -> tuple[HeldOut | None, RowQualities | None]:
    """Return how well a model does on rows, on each too where that can be said; None where there are no rows."""
    if not items:
        return None, None
    criterion.begin(model, items)
    found = criterion.measure(model, items, config.batch_size, stop)
    held_out = HeldOut(
        loss=_number(found.loss),
        perplexity=_number(found.perplexity),
        accuracy=_number(found.accuracy),
        tokens=sum(map(supervised_of, items)) or sum(map(tokens_of, items)),
        metrics={name: value for name, value in found.metrics.items() if math.isfinite(value)},
    )
    return held_out, found.rows


def _number(value: float | None) -> float | None:
    """Return what JSON can hold: a loss that is no number is none that was measured."""
    return value if value is not None and math.isfinite(value) else None


def _by_rows(before: Seen, after: Seen, count: int, bootstrap: Bootstrap) -> dict[str, ModelComparison]:
    """Compare what the objective itself measures; with intervals, where it is known row by row."""
    if before.held_out is None or after.held_out is None:
        return {}
    found: dict[str, ModelComparison] = {}
    for measured in OF_ROWS:
        one, other = getattr(before.held_out, measured), getattr(after.held_out, measured)
        if one is not None and other is not None:
            sure = _sure(measured, before.rows, after.rows, bootstrap)
            found[measured] = sure or without_interval(measured, one, other, count)
    return found


def _sure(
    measured: Measure, base: RowQualities | None, adapter: RowQualities | None, bootstrap: Bootstrap
) -> ModelComparison | None:
    """Compare by what each row comes to; None where that is not known."""
    if base is None or adapter is None:
        return None
    pair = (base.right, adapter.right) if measured is Measure.ACCURACY else (base.losses, adapter.losses)
    found = compare(measured, *pair, bootstrap, np.minimum(base.tokens, adapter.tokens))
    return found if found and math.isfinite(found.difference) else None


def _by_answers(
    questions: Sequence[Question], before: Seen, after: Seen, bootstrap: Bootstrap
) -> dict[str, ModelComparison]:
    references = [question.reference for question in questions]
    base, adapter = measure_texts(before.answers, references), measure_texts(after.answers, references)
    found = {name: compare(name, base[name], adapter[name], bootstrap) for name in base}
    return {name: one for name, one in found.items() if one}


def _shown(base: tuple[str, str] | None, adapter: tuple[str, str] | None) -> Answer | None:
    return Answer(prompt=base[0], base=base[1], adapter=adapter[1]) if base and adapter else None
