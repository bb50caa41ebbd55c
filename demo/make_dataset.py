"""
The demonstration's data set: messages to a GPU hosting company, each answered with a triage in three lines.

    python demo/make_dataset.py                     # writes demo/support.jsonl, the same file every time

Every message is put together from the hand-written parts in support_parts.yaml: an opening, a problem, a remark that
carries the urgency, a signature. The answer follows from the parts alone, so that a very small model can learn it.
"""

import json
import random
import sys
from pathlib import Path

import yaml
from pydantic import BaseModel

ROWS = 800
FOLDER = Path(__file__).parent

Row = dict[str, list[dict[str, str]]]


class Problem(BaseModel):
    """Something that goes wrong, whose job it is, ways to say it, and the words that answer it."""

    team: str
    say: list[str]
    answer: str


class Urgency(BaseModel):
    """Remarks that tell how urgent a message is, and what a sender who makes one is promised."""

    say: list[str]
    promise: str


class Parts(BaseModel):
    """Everything that messages and answers are made of."""

    problems: list[Problem]
    urgency: dict[str, Urgency]
    openings: list[str]
    signatures: list[str]
    names: list[str]
    particulars: dict[str, list[str]]


def read_parts(path: Path = FOLDER / "support_parts.yaml") -> Parts:
    """Read the hand-written parts."""
    return Parts.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def make_rows(parts: Parts, count: int = ROWS, seed: int = 0) -> list[Row]:
    """Return that many rows in a random order: no message twice, all problems about equally often."""
    draw = random.Random(seed)
    answers: dict[str, str] = {}
    while len(answers) < count:
        message, answer = _make_pair(parts, parts.problems[len(answers) % len(parts.problems)], draw)
        answers.setdefault(message, answer)
    pairs = list(answers.items())
    draw.shuffle(pairs)
    return [
        {"messages": [{"role": "user", "content": message}, {"role": "assistant", "content": answer}]}
        for message, answer in pairs
    ]


def _make_pair(parts: Parts, problem: Problem, draw: random.Random) -> tuple[str, str]:
    level, urgency = draw.choice(list(parts.urgency.items()))
    message = [draw.choice(problem.say), draw.choice(urgency.say)]
    if draw.random() < 0.6:
        message.insert(0, draw.choice(parts.openings))
    else:
        message.append(draw.choice(parts.signatures))
    answer = f"team: {problem.team}\nurgency: {level}\nreply: {problem.answer} {urgency.promise}"
    values = _draw_values(parts, draw)
    return " ".join(filter(None, message)).format_map(values), answer.format_map(values)


def _draw_values(parts: Parts, draw: random.Random) -> dict[str, str]:
    name, other = draw.sample(parts.names, 2)
    return {
        "name": name,
        "other": other,
        "amount": f"${draw.randrange(10, 1000)}",
        "job": f"job {draw.randrange(100, 1000)}",
        "row": str(draw.randrange(2, 1000)),
        "size": f"{draw.randrange(1, 100) * 10} GB",
        "count": str(draw.choice((2, 4, 8, 16, 32, 64))),
    } | {kind: draw.choice(choices) for kind, choices in parts.particulars.items()}


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER / "support.jsonl"
    rows = make_rows(read_parts())
    target.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"{target}: {len(rows)} rows")
