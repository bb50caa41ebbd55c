"""The data set of a job: read, divided, tokenized; from the cache where that was done before."""

from collections.abc import Callable, Iterator
from tempfile import TemporaryFile
from typing import Any, BinaryIO

from peft_studio import datasets
from peft_studio.config import LongRows, TrainingConfig
from peft_studio.datasets import Example, split_rows
from peft_studio.errors import InvalidConfig
from peft_studio.plan import Plan
from peft_studio.trainer.data import Encoded, fitted
from peft_studio.trainer.model import Base
from peft_studio.trainer.objectives.criterion import Criterion
from peft_studio.trainer.render import Renderer
from peft_studio.trainer.report import Reporter
from peft_studio.trainer.stored_rows import write_rows
from peft_studio.trainer.token_cache import TokenCache, cache_key

Parts = tuple[Encoded[Any], Encoded[Any]]


def prepare(
    config: TrainingConfig, plan: Plan | None, base: Base, criterion: Criterion[Any], report: Reporter
) -> Parts:
    """Read, divide and tokenize the data set: rows to train on, and rows held out."""
    limit = base.longest(config.max_length, config.virtual_tokens)
    content = content_of(config, plan)
    require_unchanged(content, plan)
    # What a new head learns is short, and has labels that are known only from the rows themselves; so are prompts,
    # and what their answers are judged by.
    cache = TokenCache.from_environment() if config.aim.writes and not config.grpo else None
    key = cache_key(content, config, base, limit) if cache else ""
    encoded = cache.load(key) if cache else None
    if encoded is not None:
        report.log("The rows were tokenized by an earlier job.")
    elif criterion.streams:
        encoded = _streamed(config, plan, base, limit, lambda write: cache.write(key, write) if cache else None)
    else:
        train, held_out = read_examples(config, plan)
        renderer = Renderer(base.tokenizer, train[0].layout)
        criterion.study([*train, *held_out])
        encoded = criterion.encode(train, renderer, limit), criterion.encode(held_out, renderer, limit)
        if cache and encoded[0].rows:
            cache.save(key, encoded)
    _tell(config, encoded, limit, report)
    return encoded


def _streamed(
    config: TrainingConfig,
    plan: Plan | None,
    base: Base,
    limit: int,
    keep: Callable[[Callable[[BinaryIO], Parts]], Parts | None],
) -> Parts:
    """Tokenize row by row into a file, one that is kept or one without a name: there may be more than memory holds."""
    renderer = Renderer(base.tokenizer, next(_examples(config, plan)).layout)

    def write(file: BinaryIO) -> Parts:
        rows = fitted(_examples(config, plan), base, renderer, limit, config.long_rows)
        return write_rows(file, rows, lambda count: split_rows(count, config.validation_split, config.seed))

    if kept := keep(write):
        return kept
    with TemporaryFile() as file:
        return write(file)


def read_examples(config: TrainingConfig, plan: Plan | None) -> tuple[list[Example], list[Example]]:
    """Read the data set and divide it into rows to train on and rows held out."""
    if plan:
        require_unchanged(content_of(config, plan), plan)
    everything = list(_examples(config, plan))
    train, held_out = split_rows(len(everything), config.validation_split, config.seed)
    return [everything[i] for i in train], [everything[i] for i in held_out]


def read_held_out(config: TrainingConfig, plan: Plan | None) -> tuple[Example, list[Example]]:
    """Read one row to train on, and all that are held out; of the others none stays in memory."""
    if plan:
        require_unchanged(content_of(config, plan), plan)
    count = sum(1 for _ in _examples(config, plan))
    train, held_out = split_rows(count, config.validation_split, config.seed)
    wanted = {train[0], *held_out}
    found = {number: row for number, row in enumerate(_examples(config, plan)) if number in wanted}
    return found[train[0]], [found[number] for number in held_out]


def _examples(config: TrainingConfig, plan: Plan | None) -> Iterator[Example]:
    path = plan.dataset.path if plan else config.dataset_path
    return datasets.examples(path, config.columns, config.objective)


def content_of(config: TrainingConfig, plan: Plan | None) -> str:
    """Hash what the data set holds now."""
    return datasets.content_hash(plan.dataset.path if plan else config.dataset_path, config.columns, config.objective)


def require_unchanged(content: str, plan: Plan | None) -> None:
    """Refuse a data set that is another one than that which was validated."""
    if plan and content != plan.dataset.sha256:
        raise InvalidConfig(
            "The data set has changed since the job was submitted.",
            field="dataset_path",
            issue="Submit the job again to train on what is there now.",
        )


def _tell(config: TrainingConfig, encoded: Parts, limit: int, report: Reporter) -> None:
    """Say what became of the rows; raises ``InvalidConfig`` where none is left to train on."""
    truncated, dropped, split = (
        sum(getattr(part, name) for part in encoded) for name in ("truncated", "dropped", "split")
    )
    if not encoded[0].rows:
        within = "fits into" if config.long_rows is LongRows.DROP else "has a token of its answer within its first"
        raise InvalidConfig(
            f"No row {within} {limit} tokens, so there is nothing to learn.",
            field="max_length",
            issue="Raise max_length, shorten the prompts, or set long_rows to split.",
        )
    if truncated:
        report.log(f"{truncated} rows are longer than {limit} tokens and were cut.", "WARNING")
    if split:
        report.log(f"{split} rows are longer than {limit} tokens and were split.", "WARNING")
    if dropped:
        why = "they are longer than" if config.long_rows is LongRows.DROP else "nothing of their answers is within"
        report.log(f"{dropped} rows were left out: {why} {limit} tokens.", "WARNING")
    if config.validation_split and not encoded[1].rows:
        report.log("No row could be held out, so nothing is measured while training.", "WARNING")
