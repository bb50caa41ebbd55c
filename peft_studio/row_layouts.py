"""From a row of a data set to an example: the layouts that are understood, and what is wrong with a row."""

from collections.abc import Iterable, Sequence
from typing import cast

from peft_studio.conversations import read_messages, read_tools, read_turns, text_of
from peft_studio.dataset_sources import Row, refuse
from peft_studio.examples import Example, Label
from peft_studio.objectives import AIMS, Objective
from peft_studio.prompt_rows import is_prompt, read_prompt
from peft_studio.row_formats import RowFormat

# Tried in this order: a row with messages and a text column is a conversation.
LAYOUTS: tuple[tuple[RowFormat, tuple[str, ...]], ...] = (
    (RowFormat.PREFERENCE, ("chosen", "rejected")),
    (RowFormat.PREFERENCE, ("input", "preferred_output", "non_preferred_output")),
    (RowFormat.UNPAIRED_PREFERENCE, ("prompt", "completion", "label")),
    (RowFormat.MESSAGES, ("messages",)),
    (RowFormat.MESSAGES, ("conversations",)),
    (RowFormat.PROMPT_COMPLETION, ("prompt", "completion")),
    (RowFormat.INSTRUCTION, ("instruction", "output")),
    (RowFormat.TOKEN_LABELS, ("tokens", "tags")),
    (RowFormat.TOKEN_LABELS, ("tokens", "ner_tags")),
    (RowFormat.LABELLED_TEXT, ("text", "label")),
    (RowFormat.PAIRS, ("anchor", "positive")),
    (RowFormat.TEXT, ("text",)),
    (RowFormat.PROMPT, ("prompt",)),
    (RowFormat.PROMPT, ("messages",)),
    (RowFormat.PROMPT, ("conversations",)),
    (RowFormat.PROMPT, ("instruction",)),
)
MOST_LABELS = 1000


def detect_format(row: Row, number: int = 1, objective: Objective | None = None) -> RowFormat:
    """
    Tell a row's layout by the columns it fills in: one that the objective is trained on, or any.

    Raises ``InvalidConfig`` where the row has none of them.
    """
    layouts = [each for each in LAYOUTS if objective is None or each[0] in AIMS[objective].formats]
    filled = {name for name, value in row.items() if value is not None}
    for layout, needed in layouts:
        if filled.issuperset(needed) and (objective is not None or _looks_like(layout, row)):
            return layout
    aim = _wanted(layouts) if objective is None else f"the objective {objective} takes {_wanted(layouts)}"
    others = (kind for kind, needed in LAYOUTS if filled.issuperset(needed) and _looks_like(kind, row))
    if (other := next(others, None)) is not None:
        raise refuse(f"is laid out as {other}; {aim}", number)
    for _, needed in layouts:
        if here := filled.intersection(needed):
            missing = next(name for name in needed if name not in filled)
            raise refuse(f"has {min(here)!r} but no {missing!r}; add it, or drop the row", number)
    use = f"use {aim}" if objective is None else aim
    raise refuse(f"has none of the columns that are understood (it has {names_of(row)}); {use}", number)


def example_of(number: int, layout: RowFormat, row: Row, objective: Objective | None = None) -> Example:
    """Read a row that is to be laid out like those before it; raises ``InvalidConfig`` where it is no use."""
    needed = [columns for kind, columns in LAYOUTS if kind is layout]
    if not any(all(row.get(name) is not None for name in columns) for columns in needed):
        found = detect_format(row, number, objective)
        raise refuse(f"is laid out as {found}, the rows before it as {layout}; use one layout", number)
    match layout:
        case RowFormat.MESSAGES:
            return Example(number, layout, messages=read_messages(number, row), tools=read_tools(number, row))
        case RowFormat.PROMPT_COMPLETION:
            return Example(
                number, layout, prompt=text_of(number, row, "prompt"), completion=text_of(number, row, "completion")
            )
        case RowFormat.INSTRUCTION:
            context = row.get("input")
            return Example(
                number,
                layout,
                prompt=text_of(number, row, "instruction"),
                input="" if context in (None, "") else text_of(number, row, "input", may_be_empty=True),
                completion=text_of(number, row, "output"),
            )
        case RowFormat.TEXT:
            return Example(number, layout, text=text_of(number, row, "text"))
        case RowFormat.LABELLED_TEXT:
            return Example(number, layout, text=text_of(number, row, "text"), label=_label(number, row["label"]))
        case RowFormat.TOKEN_LABELS:
            return _tagged(number, row)
        case RowFormat.PAIRS:
            names = ("anchor", "positive", *(["negative"] if row.get("negative") is not None else []))
            texts = tuple(Example(number, layout, text=text_of(number, row, name)) for name in names)
            return Example(number, layout, answers=texts)
        case RowFormat.PREFERENCE:
            return _preference(number, row)
        case RowFormat.UNPAIRED_PREFERENCE:
            answer = _answer(number, row, "completion")
            return Example(number, layout, answers=(answer,), label=_verdict(number, row))
        case RowFormat.PROMPT:
            return read_prompt(number, row)


def labels_of(example: Example) -> tuple[Label, ...]:
    """Return the labels that a row has."""
    return example.tags or (() if example.label is None else (example.label,))


def in_order(labels: Iterable[Label]) -> list[Label]:
    """
    Put the labels of a data set in the order in which the model numbers them: numbers by size, names by the alphabet.

    Raises ``InvalidConfig`` where there is nothing to choose, or what is no choice.
    """
    known = set(labels)
    if len(known) < 2:
        raise refuse("all rows have the same label, so there is nothing to tell apart")
    if len(known) > MOST_LABELS:
        raise refuse(f"there are more than {MOST_LABELS} labels; give the rows classes, not values")
    numbers = [label for label in known if isinstance(label, int)]
    names = [label for label in known if not isinstance(label, int)]
    if numbers and names:
        raise refuse("some labels are numbers and some are names; use one kind")
    return sorted(numbers) or sorted(names)


def names_of(row: Row) -> str:
    """Name a row's columns, as far as they look like names: without a header, the first row may hold anything."""
    names = [name for name in row if name.isidentifier() and len(name) <= 20][:8]
    return ", ".join(names) + (" and others" if len(names) < len(row) else "") if names else f"{len(row)} others"


def _looks_like(layout: RowFormat, row: Row) -> bool:
    # A label may be anything where nobody said what it is for.
    if layout is RowFormat.LABELLED_TEXT:
        return isinstance(row["label"], bool | int | str)
    if layout is RowFormat.PROMPT:
        return is_prompt(row)
    return layout is not RowFormat.UNPAIRED_PREFERENCE or _truth(row["label"]) is not None


def _wanted(layouts: Sequence[tuple[RowFormat, tuple[str, ...]]]) -> str:
    named = dict.fromkeys(" and ".join(needed) for _, needed in layouts if needed != ("conversations",))
    *some, last = named
    return f"{', '.join(some)}, or {last}" if some else last


def _preference(number: int, row: Row) -> Example:
    """
    Read two answers to one prompt.

    Without a prompt of its own it is what both begin with, as in TRL. In OpenAI's files the prompt is ``input``.
    """
    if row.get("preferred_output") is not None:
        row = _from_openai(number, row)
    if row.get("prompt") is None:
        return Example(number, RowFormat.PREFERENCE, answers=_without_prompt(number, row))
    answers = _answer(number, row, "chosen"), _answer(number, row, "rejected")
    if answers[0].format is not answers[1].format:
        raise refuse("has one answer as text and one as messages; use one layout", number)
    return Example(number, RowFormat.PREFERENCE, answers=answers)


def _from_openai(number: int, row: Row) -> Row:
    given = row["input"]
    if not isinstance(given, dict) or "messages" not in given:
        raise refuse("has an 'input' that is not an object with messages", number)
    asked = cast(Row, given)
    answers = {"chosen": row["preferred_output"], "rejected": row["non_preferred_output"]}
    return {"prompt": asked["messages"], "tools": asked.get("tools"), **answers}


def _without_prompt(number: int, row: Row) -> tuple[Example, Example]:
    if isinstance(row["chosen"], str) and isinstance(row["rejected"], str):
        chosen, rejected = text_of(number, row, "chosen"), text_of(number, row, "rejected")
        given = _shared(chosen, rejected)
        if chosen[given - 1 : given] == " ":
            given -= 1  # the space belongs to the answer, in most vocabularies
        first, second = (
            Example(number, RowFormat.PROMPT_COMPLETION, prompt=text[:given], completion=text[given:])
            for text in (chosen, rejected)
        )
        answers = first, second
    else:
        turns = [read_turns(number, name, row[name]) for name in ("chosen", "rejected")]
        given = _shared(*turns)
        tools = read_tools(number, row)
        first, second = (Example(number, RowFormat.MESSAGES, messages=some, tools=tools, given=given) for some in turns)
        answers = first, second
    if any(not answer.completion and answer.given == len(answer.messages) for answer in answers):
        raise refuse("has two answers of which one is the beginning of the other; drop the row", number)
    return tuple(_checked(number, answer) for answer in answers)  # pyright: ignore[reportReturnType]


def _answer(number: int, row: Row, name: str) -> Example:
    """Read one of the answers to a row's prompt, both texts or both messages."""
    prompt, value = row["prompt"], row[name]
    if isinstance(prompt, str) and isinstance(value, str):
        return Example(
            number,
            RowFormat.PROMPT_COMPLETION,
            prompt=text_of(number, row, "prompt", may_be_empty=True),
            completion=text_of(number, row, name),
        )
    if isinstance(prompt, str) or isinstance(value, str):
        raise refuse(f"has a 'prompt' and a {name!r} of which one is text and one is not; use one layout", number)
    before = read_turns(number, "prompt", prompt)
    messages = (*before, *read_turns(number, name, value))
    answer = Example(number, RowFormat.MESSAGES, messages=messages, tools=read_tools(number, row), given=len(before))
    return _checked(number, answer)


def _checked(number: int, answer: Example) -> Example:
    if answer.messages and answer.messages[-1].role != "assistant":
        raise refuse("has an answer that does not end with an assistant's turn", number)
    return answer


def _label(number: int, value: object) -> Label:
    """Read the name or the number of a class."""
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value >= 0:
        return value
    raise refuse("has a label that is neither a name nor a number of a class (0, 1, …)", number)


def _tagged(number: int, row: Row) -> Example:
    words: object = row["tokens"]
    tags: object = row["ner_tags"] if row.get("tags") is None else row["tags"]
    if not isinstance(words, list) or not isinstance(tags, list):
        raise refuse("has tokens or tags that are not a list", number)
    texts, labels = cast(list[object], words), cast(list[object], tags)
    if not texts or len(texts) != len(labels):
        raise refuse(f"has {len(texts)} tokens and {len(labels)} tags; give each token its own", number)
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise refuse("has a token that is empty, or no text", number)
    return Example(
        number,
        RowFormat.TOKEN_LABELS,
        text=" ".join(cast(list[str], texts)),
        words=tuple(cast(list[str], texts)),
        tags=tuple(_label(number, label) for label in labels),
    )


def _verdict(number: int, row: Row) -> bool:
    """Read whether an answer is a good one; columnar text files know no truth values."""
    verdict = _truth(row["label"])
    if verdict is None:
        raise refuse("has a 'label' that is neither true nor false", number)
    return verdict


def _truth(value: object) -> bool | None:
    known = {"true": True, "false": False, "1": True, "0": False}
    return known.get(str(value).lower()) if isinstance(value, bool | int | str) else None


def _shared(first: Sequence[object], second: Sequence[object]) -> int:
    """Count what two sequences have in common at their beginning."""
    pairs = zip(first, second, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
