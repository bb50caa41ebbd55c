"""A judge of two answers: what it is asked, how its reply is read, and what all its verdicts come to."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from peft_studio.evaluation.bootstrap import interval
from peft_studio.evaluation.comparison import Bootstrap
from peft_studio.evaluations import Judged

Verdict = Literal["A", "B", "tie"]
_ASKED = (
    "You compare two answers to a question. Judge how correct, complete and helpful each is. Neither their order nor "
    'their length counts. Reply with JSON alone: {"winner": "A"}, {"winner": "B"} or {"winner": "tie"}.'
)
_OBJECT = re.compile(r"\{[^{}]*\}")
_MOST = 8000  # characters of a text that a judge is shown


@dataclass(frozen=True)
class Pair:
    """One row: what was asked, what the row itself answers, and what both models wrote."""

    asked: str
    reference: str
    base: str
    adapter: str


def messages_of(pair: Pair, *, adapter_first: bool) -> list[dict[str, str]]:
    """Return the conversation in which a judge is asked about a row."""
    first, second = (pair.adapter, pair.base) if adapter_first else (pair.base, pair.adapter)
    parts = {"Question": pair.asked, "Reference answer": pair.reference, "Answer A": first, "Answer B": second}
    if not pair.reference:
        del parts["Reference answer"]
    shown = "\n\n".join(f"[{name}]\n{text[:_MOST]}" for name, text in parts.items())
    return [{"role": "system", "content": _ASKED}, {"role": "user", "content": shown}]


def verdict_of(reply: str) -> Verdict | None:
    """Read a reply: the last JSON object in it that names a winner; None where there is none."""
    for found in reversed(_OBJECT.findall(reply)):
        try:
            said: Any = json.loads(found)
        except ValueError:
            continue
        winner = str(said.get("winner")).strip()
        if winner in ("A", "B"):
            return winner
        if winner.lower() == "tie":
            return "tie"
    return None


def judged(model: str, verdicts: Sequence[tuple[Verdict | None, Verdict | None]], bootstrap: Bootstrap) -> Judged:
    """
    Count verdicts, of each row the one with the adapter's answer first and the one with it second.

    A row is won where both say so; otherwise it is a tie. The win rate's interval is ``bootstrap.interval``'s.
    """
    read = [(first, second) for first, second in verdicts if first is not None and second is not None]
    worth = np.array([{("A", "B"): 1.0, ("B", "A"): 0.0}.get(pair, 0.5) for pair in read])
    nothing = np.zeros_like(worth)
    low, high = interval(nothing, worth, np.ones_like(worth), bootstrap)
    return Judged(
        model=model,
        rows=len(read),
        unreadable=len(verdicts) - len(read),
        adapter_wins=int((worth == 1).sum()),
        base_wins=int((worth == 0).sum()),
        ties=int((worth == 0.5).sum()),
        win_rate=float(worth.mean()) if len(read) else None,
        low=low,
        high=high,
    )
