"""Measure any stored adapter beside its base model: on a data set, and by tasks of lm-evaluation-harness."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft_studio import datasets
from peft_studio.config import TrainingConfig
from peft_studio.datasets import Example, split_rows
from peft_studio.errors import InvalidConfig
from peft_studio.evaluation.judging import Pair
from peft_studio.evaluations import EvaluationResult, EvaluationTask
from peft_studio.jobs import Evaluation
from peft_studio.trainer.comparing import Compared, Subject, compare_models
from peft_studio.trainer.harness import compare_scores, run_tasks
from peft_studio.trainer.model import device, read_base
from peft_studio.trainer.objectives import criterion_of
from peft_studio.trainer.quantization import require_quantization
from peft_studio.trainer.render import Renderer
from peft_studio.trainer.stop import StopSignal

Say = Callable[[str, float], None]


@dataclass(frozen=True)
class Measured:
    """What was measured, and what a judge may compare."""

    result: EvaluationResult
    pairs: list[Pair]


def evaluate_adapter(task: EvaluationTask, say: Say, harness_tasks: Path | None = None) -> Measured:
    """Measure an adapter; ``say`` is told what it is at. Raises ``InvalidConfig`` with the field."""
    wanted, config = task.wanted, task.config
    _require_unchanged(task)
    count = sum(1 for _ in _examples(task))
    places = places_of(count, task)
    if not places:
        raise InvalidConfig("dataset: it has no rows to measure on.", field="dataset", issue="Name one that has rows.")
    require_quantization(config, device())
    base = read_base(config, None)
    criterion = criterion_of(config, base)
    # Where each row can be read alone, those that nobody measures on stay on the disk.
    wanted_rows = set(places) if criterion.streams else range(count)
    rows = {place: row for place, row in enumerate(_examples(task)) if place in wanted_rows}
    criterion.study(list(rows.values()))
    examples = [rows[place] for place in places]
    renderer = Renderer(base.tokenizer, examples[0].layout)
    subject = Subject(config, base, criterion, renderer, Path(task.adapter), StopSignal())
    at = iter((("base model", 0.05), ("adapter", 0.5)))

    def extra(model: Any) -> Any:
        if wanted.lm_eval is None:
            return None
        return run_tasks(model, base.tokenizer, wanted.lm_eval, config.batch_size, harness_tasks)

    compared = compare_models(
        subject, examples, config.test_prompt or examples[0], wanted, extra, lambda: say(*next(at))
    )
    lm_eval = compare_scores(compared.base.extra, compared.adapter.extra, wanted.bootstrap) if wanted.lm_eval else {}
    return Measured(
        EvaluationResult(evaluation=_chosen(compared, task), notes=_notes(task, count), lm_eval=lm_eval),
        [
            Pair(question.asked, question.reference, before, after)
            for question, before, after in zip(
                compared.questions, compared.base.answers, compared.adapter.answers, strict=True
            )
        ],
    )


def places_of(count: int, task: EvaluationTask) -> list[int]:
    """Return which of so many rows to measure on: those held out, or all; of too many some, always the same."""
    config: TrainingConfig = task.config
    rest, held_out = split_rows(count, config.validation_split if task.held_out else 0, config.seed)
    return (held_out if task.held_out else rest)[: task.wanted.rows]


def _examples(task: EvaluationTask) -> Iterator[Example]:
    return datasets.examples(task.config.dataset_path, task.config.columns, task.config.objective)


def _require_unchanged(task: EvaluationTask) -> None:
    """Refuse other rows than those of which is known whether the adapter was trained on them."""
    config = task.config
    if datasets.content_hash(config.dataset_path, config.columns, config.objective) != task.dataset_sha256:
        raise InvalidConfig(
            "dataset: it has changed since the evaluation was asked for.", field="dataset", issue="Ask for it again."
        )


def _chosen(compared: Compared, task: EvaluationTask) -> Evaluation:
    measures = task.wanted.measures
    evaluation = compared.evaluation
    kept = {name: one for name, one in evaluation.comparison.items() if measures is None or name in measures}
    return evaluation.model_copy(update={"comparison": kept})


def _notes(task: EvaluationTask, count: int) -> list[str]:
    notes = list(task.notes)
    if count > task.wanted.rows and not task.held_out:
        notes.append(f"Of {count} rows {task.wanted.rows} were drawn.")
    return notes
