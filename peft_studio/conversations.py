"""Conversations as data sets write them: OpenAI's messages with tool calls, and ShareGPT's of several kinds."""

import json
from dataclasses import dataclass, field
from typing import Any, cast

from peft_studio.dataset_sources import Row, refuse

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
}

Tool = dict[str, Any]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; the role is system, user, assistant or tool. Not each answer has to be learnt."""

    role: str
    content: str
    tool_calls: tuple[Tool, ...] = field(default=(), hash=False)
    name: str | None = None
    is_learnt: bool = True

    @property
    def characters(self) -> int:
        """Characters of text, calls included."""
        return len(self.content) + sum(len(json.dumps(call)) for call in self.tool_calls)

    def as_turn(self) -> dict[str, Any]:
        """Say it the way chat templates expect."""
        turn: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            turn["tool_calls"] = list(self.tool_calls)
        if self.name:
            turn["name"] = self.name
        return turn


def read_messages(number: int, row: Row) -> tuple[Message, ...]:
    """Read a row's conversation, which has to end with an answer."""
    name = "messages" if row.get("messages") is not None else "conversations"
    messages = read_turns(number, name, row[name])
    if messages[-1].role != "assistant":
        raise refuse("does not end with an assistant's turn, so there is no answer to learn", number)
    if not any(message.is_learnt for message in messages if message.role == "assistant"):
        raise refuse("has weight 0 at every assistant's turn, so there is no answer to learn", number)
    return messages


def read_turns(number: int, name: str, turns: object) -> tuple[Message, ...]:
    """Read a column's turns, of which there is at least one."""
    if not isinstance(turns, list):
        raise refuse(f"has {name!r} that is not a list", number)
    if not turns:
        raise refuse(f"has an empty list of {name}; drop the row", number)
    return tuple(_message(number, place, turn) for place, turn in enumerate(cast(list[object], turns), 1))


def read_tools(number: int, row: Row) -> tuple[Tool, ...]:
    """Read the tools that a row's conversation may use: a list of JSON schemas, or such a list as text."""
    value: object = row.get("tools")
    if value in (None, "", []):
        return ()
    tools = _parsed(value) if isinstance(value, str) else value
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in cast(list[object], tools)):
        raise refuse("has 'tools' that are not a list of objects", number)
    return tuple(_without_nulls(tool) for tool in cast(list[Tool], tools))


def _message(number: int, place: int, turn: object) -> Message:
    if not isinstance(turn, dict):
        raise refuse(f"has a turn {place} that is not an object with role and content", number)
    fields = cast(Row, turn)
    # Columnar files give every turn every field that any turn has, empty where it has none.
    said, content = fields.get("role") or fields.get("from"), "value" if fields.get("content") is None else "content"
    role = ROLES.get(said) if isinstance(said, str) else None
    if role is None:
        raise refuse(f"has a turn {place} with an unknown role; the roles are system, user, assistant and tool", number)
    learnt = _weight(number, place, fields.get("weight"))
    calls = _calls(number, place, said, fields.get("tool_calls"), fields.get(content))
    if calls and (said == "function_call" or fields.get(content) is None):
        return Message(role, "", calls, is_learnt=learnt)
    if fields.get(content) is None:
        raise refuse(f"has a turn {place} without content", number)
    optional = bool(calls) or role in ("system", "tool")
    text = text_of(number, fields, content, f"turn {place} ({role})", may_be_empty=optional)
    name = fields.get("name")
    return Message(role, text, calls, name if isinstance(name, str) and role == "tool" else None, learnt)


def _weight(number: int, place: int, value: object) -> bool:
    """Read whether a turn is to be learnt, as OpenAI's files say it: by a weight of 0 or 1."""
    if value not in (None, 0, 1):
        raise refuse(f"has a turn {place} with a weight that is neither 0 nor 1", number)
    return value != 0


def _calls(number: int, place: int, said: object, calls: object, content: object) -> tuple[Tool, ...]:
    if said == "function_call":
        calls = _parsed(content)
        calls = calls if isinstance(calls, list) else [calls]
    if calls is None or calls == []:
        return ()
    if not isinstance(calls, list):
        raise refuse(f"has a turn {place} whose tool_calls are not a list", number)
    return tuple(_call(number, place, call) for call in cast(list[object], calls))


def _call(number: int, place: int, call: object) -> Tool:
    """Bring a call into OpenAI's form, with the arguments as an object: templates write them as JSON themselves."""
    outer = cast(Tool, call) if isinstance(call, dict) else {}
    inner = outer.get("function") or outer
    name = cast(Tool, inner).get("name") if isinstance(inner, dict) else None
    if not isinstance(name, str) or not name:
        raise refuse(f"has a turn {place} with a tool call that names no function", number)
    arguments: object = cast(Tool, inner).get("arguments")
    parsed = {} if arguments in (None, "") else _parsed(arguments) if isinstance(arguments, str) else arguments
    if not isinstance(parsed, dict):
        raise refuse(f"has a turn {place} whose call of {name!r} has arguments that are no JSON object", number)
    called: Tool = {"type": "function", "function": {"name": name, "arguments": _without_nulls(cast(Tool, parsed))}}
    return {"id": outer["id"], **called} if isinstance(outer.get("id"), str) else called


def _without_nulls(value: Tool) -> Tool:
    """Drop what columnar files add to objects that other rows have more fields in."""
    return {
        name: _without_nulls(cast(Tool, each)) if isinstance(each, dict) else each
        for name, each in value.items()
        if each is not None
    }


def _parsed(value: object) -> object:
    try:
        return json.loads(value) if isinstance(value, str) else None
    except (ValueError, RecursionError):
        return None


def text_of(number: int, row: Row, name: str, label: str | None = None, may_be_empty: bool = False) -> str:
    """Read a text out of a row; raises ``InvalidConfig`` with the row where it is none."""
    value: object = row[name]
    label = label or repr(name)
    if not isinstance(value, str):
        raise refuse(f"has a {label} that is {type(value).__name__}, not text", number)
    if not may_be_empty and not value.strip():
        raise refuse(f"has an empty {label}; fill it in, or drop the row", number)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise refuse(f"has a {label} with half a surrogate pair, which is no character", number) from None
    return value
