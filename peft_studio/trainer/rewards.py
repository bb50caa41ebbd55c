"""Reward functions: the studio's own, those of an operator's modules, and what they made of answers."""

import importlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from peft_studio.errors import InvalidConfig, TrainingFailed
from peft_studio.grpo import RewardConfig

Judge = Callable[..., Any]
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
FIELD = "grpo.rewards"


@dataclass(frozen=True)
class Answered:
    """A row's prompt, some answers to it, and what else is known of the row."""

    number: int
    prompt: str | list[dict[str, Any]]  # a conversation where the row is one
    answers: Sequence[str]
    tokens: Sequence[list[int]]
    columns: Mapping[str, Any]


class Rewards:
    """
    What answers are judged by.

    A function is called as in TRL, with lists of like length: ``prompts``, ``completions`` (texts, or lists of one
    message), ``completion_ids`` and every column of the data set by its name. It returns a number for each answer, or
    None where it has none to give.
    """

    def __init__(self, rewards: Sequence[RewardConfig]):
        self.names = _names(rewards)
        self._weights = np.array([reward.weight for reward in rewards])
        self._columns = [reward.column for reward in rewards]
        self._judges = [
            _imported(reward.function) if reward.is_own else OWN[reward.function](reward) for reward in rewards
        ]

    def require_columns(self, number: int, columns: Mapping[str, Any]) -> None:
        """Refuse a row without what a function compares answers with."""
        for name, column in zip(self.names, self._columns, strict=True):
            if column is not None and columns.get(column) is None:
                issue = f"row {number} has no {column!r}, which the reward {name} compares answers with"
                raise InvalidConfig.of("dataset_path", issue, row=number)

    def of(self, row: Answered) -> NDArray[np.float64]:
        """Judge a row's answers; the shape is (answers, functions), and nan is no judgement."""
        judged = [self._ask(name, judge, row) for name, judge in zip(self.names, self._judges, strict=True)]
        return np.stack(judged, axis=1)

    def total(self, judged: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add up each answer's weighted judgements; nan where it has none at all."""
        sums = np.nansum(judged * self._weights, axis=1)
        return np.where(np.isnan(judged).all(axis=1), np.nan, sums)

    def _ask(self, name: str, judge: Judge, row: Answered) -> NDArray[np.float64]:
        count = len(row.answers)
        chat = isinstance(row.prompt, list)
        completions = [[{"role": "assistant", "content": text}] if chat else text for text in row.answers]
        columns = {column: [value] * count for column, value in row.columns.items() if column not in _OURS}
        try:
            found: object = judge(
                prompts=[row.prompt] * count, completions=completions, completion_ids=list(row.tokens), **columns
            )
        except Exception as error:
            line = (str(error).strip() or "no message").splitlines()[0]
            raise _failed(name, row, f"raised {type(error).__name__}: {line}") from error
        if not isinstance(found, Sequence | np.ndarray) or isinstance(found, str):
            raise _failed(name, row, f"returned {type(found).__name__}, not a list of numbers")
        values = cast(Sequence[object], found)
        if len(values) != count:
            raise _failed(name, row, f"returned {len(values)} numbers for {count} answers")
        return np.array([_number(name, row, value) for value in values])


_OURS = ("prompts", "completions", "completion_ids")


def _number(name: str, row: Answered, value: Any) -> float:
    if value is None:
        return math.nan
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise _failed(name, row, f"returned {type(value).__name__} where a number belongs") from None
    if not math.isfinite(number):
        raise _failed(name, row, f"returned {number}; None is no judgement")
    return number


def _failed(name: str, row: Answered, what: str) -> TrainingFailed:
    issue = f"row {row.number}: {what}"
    return TrainingFailed(f"The reward function {name} failed at {issue}.", field=FIELD, issue=issue, row=row.number)


def _names(rewards: Sequence[RewardConfig]) -> list[str]:
    """Name functions; one that is asked several times has a number behind its name."""
    names: list[str] = []
    for reward in rewards:
        before = sum(name.split("#")[0] == reward.function for name in names)
        names.append(f"{reward.function}#{before + 1}" if before else reward.function)
    return names


def _imported(path: str) -> Judge:
    module, _, name = path.partition(":")
    try:
        judge = getattr(importlib.import_module(module), name)
    except Exception as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InvalidConfig(
            f"The reward function {path} cannot be imported: {line}",
            field=FIELD,
            issue="Install its module where the studio trains, or put its folder on PYTHONPATH.",
        ) from error
    if not callable(judge):
        raise InvalidConfig(f"{path} is not a function.", field=FIELD, issue="Name a function.")
    return judge


def _each(said: Callable[[str, Any], float], column: str | None = None) -> Judge:
    """Judge answers one by one, each beside what its column holds."""

    def judge(completions: Sequence[Any], **columns: Any) -> list[float]:
        beside = columns[column] if column else [None] * len(completions)
        return [float(said(_text(answer), value)) for answer, value in zip(completions, beside, strict=True)]

    return judge


def _text(answer: Any) -> str:
    return answer if isinstance(answer, str) else answer[0]["content"]


def _plain(text: object, ignore_case: bool) -> str:
    stripped = str(text).strip()
    return stripped.casefold() if ignore_case else stripped


def _exact_match(reward: RewardConfig) -> Judge:
    fold = bool(reward.option("ignore_case"))
    return _each(lambda answer, wanted: _plain(answer, fold) == _plain(wanted, fold), reward.column)


def _contains(reward: RewardConfig) -> Judge:
    fold = bool(reward.option("ignore_case"))
    return _each(lambda answer, wanted: _plain(wanted, fold) in _plain(answer, fold), reward.column)


def _number_match(reward: RewardConfig) -> Judge:
    """Compare the last numbers of both texts, as worked answers end with theirs."""
    tolerance = float(reward.option("tolerance"))

    def alike(answer: str, wanted: object) -> bool:
        numbers = [_last_number(answer), _last_number(str(wanted))]
        return None not in numbers and abs(float(numbers[0] or 0) - float(numbers[1] or 0)) <= tolerance

    return _each(alike, reward.column)


def _last_number(text: str) -> float | None:
    found = NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def _regex(reward: RewardConfig) -> Judge:
    pattern = re.compile(str(reward.option("pattern")), re.IGNORECASE if reward.option("ignore_case") else 0)
    look = pattern.fullmatch if reward.option("whole") else pattern.search
    return _each(lambda answer, _: look(answer.strip()) is not None)


def _length(reward: RewardConfig) -> Judge:
    """Give 1 within the bounds, and outside of them what the length and the nearest bound are to each other."""
    least, most, unit = reward.option("at_least"), reward.option("at_most"), reward.option("unit")

    def judge(completions: Sequence[Any], completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        texts = [_text(answer) for answer in completions]
        lengths = {
            "characters": [len(text) for text in texts],
            "words": [len(text.split()) for text in texts],
            "tokens": [len(ids) for ids in completion_ids],
        }[unit]
        return [1.0 if least <= n <= most else n / least if n < least else most / n for n in lengths]

    return judge


def _json(reward: RewardConfig) -> Judge:
    """Give 1 for an answer that is JSON, and an object with all keys where some are wanted."""
    keys = {key.strip() for key in str(reward.option("keys")).split(",") if key.strip()}

    def valid(answer: str, _: object) -> bool:
        try:
            found: object = json.loads(answer)
        except (ValueError, RecursionError):
            return False
        return not keys or (isinstance(found, dict) and keys <= cast(dict[str, Any], found).keys())

    return _each(valid)


OWN: Mapping[str, Callable[[RewardConfig], Judge]] = {
    "exact_match": _exact_match,
    "contains": _contains,
    "number_match": _number_match,
    "regex": _regex,
    "length": _length,
    "json": _json,
}
