"""
Show a data set's rows the way the trainer does to the model, without training.

    python -m peft_studio.trainer.preview

Reads a PreviewRequest from standard input and writes a PreviewAnswer to standard output. Of the base model, only
its tokenizer and configuration are read.
"""

import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from itertools import islice

from peft_studio import datasets
from peft_studio.config import LongRows, ModelSource, TrainingConfig
from peft_studio.datasets import Example
from peft_studio.errors import StudioError
from peft_studio.previews import DatasetPreview, PreviewAnswer, PreviewRequest, Sample, Token
from peft_studio.trainer.data import Row, Tokenized, tokenize
from peft_studio.trainer.model import Base, read_base
from peft_studio.trainer.render import READ, Renderer

EXAMINED_ROWS = 5000
EXAMINED_CHARACTERS = 2_000_000  # about a second's work
MOST_NUMBERS = 100


class _Survey:
    """What the rows looked at so far have come to."""

    def __init__(self, limit: int, long_rows: LongRows):
        self._limit = limit
        self._long_rows = long_rows
        self._seen: set[bytes] = set()
        self.rows = self.tokens = self.supervised = self.truncated = self.dropped = self.split = 0
        self.duplicates: list[int] = []
        self.empty: list[int] = []

    def add(self, example: Example, texts: Sequence[Tokenized]) -> list[list[Row]]:
        """Look at a row, of which the model reads one text or several; return what it is trained on of each."""
        is_long = any(len(whole.ids) > self._limit for whole in texts)
        becomes = self._becomes(is_long, len(texts))
        trained = [] if becomes is LongRows.DROP else [whole.fit(self._limit, becomes) for whole in texts]
        self.rows += 1
        self.tokens += sum(len(row.ids) for rows in trained for row in rows)
        self.supervised += sum(row.supervised for rows in trained for row in rows)
        self.truncated += is_long and becomes is LongRows.TRUNCATE
        self.dropped += becomes is LongRows.DROP
        self.split += becomes is LongRows.SPLIT
        empty = not all(any(row.supervised for row in rows) for rows in trained)
        if empty and example.format not in READ:
            self.empty.append(example.number)
        digest = hashlib.sha256("\0".join(whole.rendered.text for whole in texts).encode()).digest()
        if digest in self._seen:
            self.duplicates.append(example.number)
        self._seen.add(digest)
        return trained

    def _becomes(self, is_long: bool, texts: int) -> LongRows:
        """Say what becomes of a row; one of several texts, which belong together, is never split."""
        if not is_long or (texts > 1 and self._long_rows is LongRows.SPLIT):
            return LongRows.TRUNCATE
        return self._long_rows


def preview(request: PreviewRequest) -> DatasetPreview:
    """Render, tokenize and count a data set's first rows; raises what training on it would raise."""
    config = TrainingConfig(
        base_model=request.base_model,
        model_source=ModelSource(request.model_source),
        model_revision=request.model_revision,
        dataset_path=request.path,
        max_length=request.max_length,
        columns=request.columns,
        long_rows=request.long_rows,
    )
    base = read_base(config, None)
    limit = base.longest(request.max_length)
    rows = list(_first(datasets.examples(request.path, config.columns)))
    survey, samples, shown = _Survey(limit, config.long_rows), list[Sample](), 0
    whole = tokenize((text for row in rows for text in row.texts), base, Renderer(base.tokenizer, rows[0].layout))
    for example in rows:
        texts = list(islice(whole, len(example.texts)))
        trained = survey.add(example, texts)
        if trained and shown < request.limit:
            shown += 1
            for text, parts in zip(texts, trained, strict=True):
                samples += _samples(example, text, parts, base, limit)
    return DatasetPreview(
        base_model=request.base_model,
        samples=samples,
        examined_rows=survey.rows,
        tokens=survey.tokens,
        supervised_share=round(survey.supervised / survey.tokens, 4) if survey.tokens else 0.0,
        truncated_rows=survey.truncated,
        dropped_rows=survey.dropped,
        split_rows=survey.split,
        duplicate_rows=survey.duplicates[:MOST_NUMBERS],
        empty_rows=survey.empty[:MOST_NUMBERS],
    )


def _first(examples: Iterable[Example]) -> Iterator[Example]:
    """Take rows until there is enough to look at, however long each of them is."""
    characters = 0
    for example in islice(examples, EXAMINED_ROWS):
        yield example
        characters += example.characters
        if characters > EXAMINED_CHARACTERS:
            break


def _samples(example: Example, whole: Tokenized, parts: Sequence[Row], base: Base, limit: int) -> Iterator[Sample]:
    """Show what is trained on of a text, part by part."""
    texts = list(_texts(whole, base))
    for place, row in enumerate(parts):
        start = place * (limit - 1)  # a part repeats the last token of the one before
        # The first token of a row has nothing to be predicted from.
        loss = [False, *map(bool, row.learn[1:])]
        yield Sample(
            row=example.number,
            text=whole.rendered.text,
            tokens=[
                Token(id=id, text=text, loss=learn)
                for id, text, learn in zip(row.ids.tolist(), texts[start:], loss, strict=False)
            ],
            supervised_tokens=row.supervised,
            truncated=len(parts) == 1 and len(whole.ids) > limit,
        )


def _texts(whole: Tokenized, base: Base) -> Iterator[str]:
    """
    Say what each token stands for: the row's characters, each at the first token that has to do with it.

    Tokens that are added stand for no characters; they are called by their names.
    """
    done = 0
    for place, id in enumerate(whole.ids):
        start, end = whole.offsets[place] if place < len(whole.offsets) else (0, 0)
        if start == end:
            yield base.tokenizer.convert_ids_to_tokens(id)
        else:
            yield whole.rendered.text[done : max(done, end)]
            done = max(done, end)


def main() -> None:
    """Answer one request."""
    request = PreviewRequest.model_validate_json(sys.stdin.buffer.read())
    try:
        with redirect_stdout(sys.stderr):  # whatever a library has to say
            answer = PreviewAnswer(preview=preview(request))
    except StudioError as error:
        answer = PreviewAnswer(code=error.code, message=error.message, details=error.details)
    print(answer.model_dump_json())


if __name__ == "__main__":
    main()
