"""Example: one row of a data set, whatever its layout was."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from peft_studio.conversations import Message, Tool
from peft_studio.row_formats import RowFormat

Label = str | int


@dataclass(frozen=True)
class Example:
    """
    One row, whatever its layout was.

    Of an instruction row, ``prompt`` is the instruction, ``input`` the input and ``completion`` the output. A row that
    holds several answers, or one that is judged, has them as ``answers``: examples in a layout of their own, whose
    first ``given`` messages are the prompt. The chosen one comes before the rejected one. Of a prompt that the model
    answers itself, ``columns`` are what else is known of the row.
    """

    number: int
    format: RowFormat
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = field(default=(), hash=False)
    prompt: str = ""
    completion: str = ""
    text: str = ""
    input: str = ""
    given: int = 0
    answers: tuple["Example", ...] = ()
    label: Label | None = None
    words: tuple[str, ...] = ()
    tags: tuple[Label, ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)

    @property
    def texts(self) -> tuple["Example", ...]:
        """What the model reads of it: one text after the other."""
        return self.answers or (self,)

    @property
    def layout(self) -> RowFormat:
        """How what the model reads is laid out."""
        return self.texts[0].format

    @property
    def characters(self) -> int:
        """Characters of text, all fields together."""
        if self.answers:
            return sum(answer.characters for answer in self.answers)
        turns = sum(message.characters for message in self.messages)
        return turns + len(self.prompt) + len(self.input) + len(self.completion) + len(self.text)
