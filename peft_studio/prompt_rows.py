"""Rows that hold a prompt which the model answers itself, and what its answers are judged by."""

from peft_studio.conversations import read_tools, read_turns, text_of
from peft_studio.dataset_sources import COLUMNS, Row, refuse
from peft_studio.examples import Example
from peft_studio.row_formats import RowFormat


def is_prompt(row: Row) -> bool:
    """Say whether a row looks like a prompt where nobody said so: beside it are columns that mean nothing else."""
    return any(name not in COLUMNS and value is not None for name, value in row.items())


def read_prompt(number: int, row: Row) -> Example:
    """
    Read a prompt; raises ``InvalidConfig`` where it is no use.

    A conversation's last answer, where it ends with one, is no part of the prompt but the column ``completion``.
    """
    text = row.get("prompt")
    if isinstance(text, str):
        asked = Example(number, RowFormat.PROMPT_COMPLETION, prompt=text_of(number, row, "prompt"))
        return _with_columns(asked, row, ("prompt",))
    if row.get("instruction") is not None and text is None:
        return _with_columns(_instruction(number, row), row, ("instruction", "input"))
    name = next(name for name in ("prompt", "messages", "conversations") if row.get(name) is not None)
    turns = read_turns(number, name, row[name])
    more = {}
    if turns and turns[-1].role == "assistant":
        more = {"completion": turns[-1].content}
        turns = turns[:-1]
    if not turns:
        raise refuse("has a conversation in which nothing is asked", number)
    asked = Example(number, RowFormat.MESSAGES, messages=tuple(turns), tools=read_tools(number, row), given=len(turns))
    return _with_columns(asked, more | row, (name, "tools"))


def _instruction(number: int, row: Row) -> Example:
    context = row.get("input")
    return Example(
        number,
        RowFormat.INSTRUCTION,
        prompt=text_of(number, row, "instruction"),
        input="" if context in (None, "") else text_of(number, row, "input", may_be_empty=True),
    )


def _with_columns(asked: Example, row: Row, read: tuple[str, ...]) -> Example:
    columns = {name: value for name, value in row.items() if name not in read}
    return Example(asked.number, RowFormat.PROMPT, answers=(asked,), columns=columns)
