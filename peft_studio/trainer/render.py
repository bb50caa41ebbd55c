"""Examples as text: the chat template or a plain layout, and which characters of it the model is to learn."""

from dataclasses import dataclass, replace
from typing import Any

from jinja2 import TemplateError

from peft_studio.conversations import Message, Tool
from peft_studio.datasets import Example
from peft_studio.errors import InvalidConfig
from peft_studio.row_formats import RowFormat

READ = (RowFormat.LABELLED_TEXT, RowFormat.TOKEN_LABELS, RowFormat.PAIRS)  # as they stand; none of it is to be written
Span = tuple[int, int]
Turn = dict[str, Any]
Tools = tuple[Tool, ...]


@dataclass(frozen=True)
class Rendered:
    """
    A row as text; ``answers`` are the character ranges that carry loss.

    A row that is not ``closed`` by a special token of its own ends with the end-of-text token, which carries loss where
    the last answer does.
    """

    text: str
    answers: list[Span]
    closed: bool = False
    end_is_learnt: bool = True


class Renderer:
    """
    Lays out examples for one tokenizer, in training and at the prompt alike.

    Conversations and, where there is a chat template, instructions go through the template; everything else is
    taken as it stands, and ``literal`` is true: the tokenizer adds its special tokens. What belongs to an answer is
    found by rendering parts of the conversation, so that templates need no generation block.
    """

    def __init__(self, tokenizer: Any, format: RowFormat):
        has_template = tokenizer.chat_template is not None
        if format is RowFormat.MESSAGES and not has_template:
            raise InvalidConfig(
                "The base model has no chat template, so it cannot be trained on rows of messages.",
                field="base_model",
                issue="Choose a chat (instruct) model, or rows with prompt and completion.",
            )
        self.format = format
        self.literal = not has_template or format not in (RowFormat.MESSAGES, RowFormat.INSTRUCTION)
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.values()
        self._special = tuple({*tokenizer.all_special_tokens, *(str(token) for token in added if token.special)})

    def row(self, example: Example) -> Rendered:
        """Lay out a training row."""
        try:
            if not self.literal:
                return _with_weights(self._conversation(_turns(example), example.tools, example.given), example)
            if example.format in READ:
                return Rendered(example.text, [], closed=True)
            before = self._literal_prompt(example)
            text = before + (example.text or example.completion)
            return Rendered(text, [(len(before), len(text))])
        except (TemplateError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise InvalidConfig(
                f"Row {example.number} does not go through the base model's chat template: {reason}",
                field="dataset_path",
                issue=reason,
                row=example.number,
            ) from error

    def prompt(self, prompt: str | Example) -> tuple[str, str]:
        """Lay out what the model is asked, a question or a row's own; also return it as people read it."""
        if isinstance(prompt, str):
            example = Example(number=0, format=self.format, messages=(Message("user", prompt),), prompt=prompt)
            asked = prompt
        else:
            example, asked = prompt, _question(prompt)
        if not self.literal:
            return self._render(self.asked(example), example.tools, ask=True), asked
        if self.format is RowFormat.TEXT:
            return asked, asked
        return self._literal_prompt(example), asked

    def asked(self, example: Example) -> list[Turn]:
        """Return the turns up to the first answer that is the model's to give."""
        turns = _turns(example)
        answers = (i for i, turn in enumerate(turns) if i >= example.given and turn["role"] == "assistant")
        return turns[: next(answers, len(turns))]

    def end_of_turn(self) -> str | None:
        """The special token with which the template ends an answer, if it does."""
        if self.literal:
            return None
        conversation = self._conversation([_turn("user", "?"), _turn("assistant", "!")])
        closing = conversation.text[slice(*conversation.answers[-1])].rpartition("!")[2]
        found = [token for token in self._special if token in closing]
        return min(found, key=closing.index, default=None)

    def _literal_prompt(self, example: Example) -> str:
        if self.format is not RowFormat.INSTRUCTION:
            return example.prompt
        parts = [f"### Instruction:\n{example.prompt}"]
        parts += [f"### Input:\n{example.input}"] if example.input else []
        return "\n\n".join([*parts, "### Response:\n"])

    def _conversation(self, turns: list[Turn], tools: Tools = (), given: int = 0) -> Rendered:
        text = self._render(turns, tools)
        answers: list[Span] = []
        for i, turn in enumerate(turns):
            if turn["role"] == "assistant" and i >= given:
                span = self._span_by_prefixes(text, turns, i, tools) or self._span_by_marker(text, turns, i, tools)
                if span is None:
                    raise ValueError(_CANNOT_TELL)
                if any(part not in text[slice(*span)] for part in _said(turn)):
                    raise ValueError("it leaves out what the assistant says")
                answers.append(span)
        return Rendered(text, answers, closed=bool(answers) and text[slice(*answers[-1])].endswith(self._special))

    def _span_by_prefixes(self, text: str, turns: list[Turn], i: int, tools: Tools) -> Span | None:
        """The answer is what the conversation up to it has more than the question with the invitation to answer."""
        before = self._render(turns[:i], tools, ask=True) if i else ""
        upto = self._render(turns[: i + 1], tools) if turns[i + 1 :] else text
        if not (text.startswith(before) and text.startswith(upto)):
            return None
        answer = upto[len(before) :]
        if answer.rstrip().endswith(self._special):
            answer = answer.rstrip()  # the line break behind the end of a turn is never generated
        return len(before), len(before) + len(answer)

    def _span_by_marker(self, text: str, turns: list[Turn], i: int, tools: Tools) -> Span | None:
        """
        The answer stands where a marker in its stead does, up to the special token that follows.

        For templates that write the last turn, or the invitation to answer, differently from what is history.
        """
        marked = [*turns[:i], _turn("assistant", _MARKER), *turns[i + 1 :]]
        before, *after = self._render(marked, tools).split(_MARKER)
        if len(after) != 1 or not (text.startswith(before) and text.endswith(after[0])):
            return None
        rest = after[0].lstrip()
        closing = max((token for token in self._special if rest.startswith(token)), key=len, default=None)
        return None if closing is None else (len(before), len(text) - len(rest) + len(closing))

    def _render(self, turns: list[Turn], tools: Tools = (), ask: bool = False) -> str:
        offered = {"tools": list(tools)} if tools else {}
        return self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=ask, **offered)


_MARKER = "\ue000answer\ue000"  # from Unicode's private use area
_CANNOT_TELL = (
    "it writes a conversation in such a way that the answers cannot be told from the rest; use rows with one answer "
    "each, or prompt and completion"
)


def _with_weights(rendered: Rendered, example: Example) -> Rendered:
    """Take the loss off the answers that a row says are not to be learnt."""
    turns = [message for message in example.messages[example.given :] if message.role == "assistant"]
    if all(turn.is_learnt for turn in turns):
        return rendered
    learnt = [span for span, turn in zip(rendered.answers, turns, strict=True) if turn.is_learnt]
    return replace(rendered, answers=learnt, end_is_learnt=turns[-1].is_learnt)


def _turn(role: str, content: str) -> Turn:
    return {"role": role, "content": content}


def _said(turn: Turn) -> list[str]:
    """What of an answer has to stand in its text: the end of its content, and the functions it calls."""
    called = [call["function"]["name"] for call in turn.get("tool_calls", ())]
    return [turn["content"].strip()[-20:], *called]


def _turns(example: Example) -> list[Turn]:
    if example.format is RowFormat.MESSAGES:
        return [message.as_turn() for message in example.messages]
    return [_turn("user", _question(example)), _turn("assistant", example.completion)]


def _question(example: Example) -> str:
    """What a row asks, as people read it; of plain text its beginning."""
    match example.format:
        case RowFormat.MESSAGES:
            turns = example.messages[: example.given] or example.messages
            asked = [message.content for message in turns if message.role == "user"] or [""]
            return asked[-1 if example.given else 0]
        case RowFormat.INSTRUCTION:
            return f"{example.prompt}\n\n{example.input}" if example.input else example.prompt
        case RowFormat.PROMPT_COMPLETION:
            return example.prompt
        case RowFormat.PREFERENCE | RowFormat.UNPAIRED_PREFERENCE | RowFormat.PROMPT:
            return _question(example.texts[0])
        case RowFormat.LABELLED_TEXT | RowFormat.TOKEN_LABELS | RowFormat.PAIRS:
            return example.text
        case RowFormat.TEXT:
            return example.text[: min(200, len(example.text) // 2)] or example.prompt
