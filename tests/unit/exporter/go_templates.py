"""As much of Go's text/template as the project writes, to see what Ollama would make of it."""

import re
from collections.abc import Sequence
from typing import Any

_ACTION = re.compile(r"\{\{ (.*?) \}\}", re.DOTALL)


def render(template: str, messages: Sequence[dict[str, str]]) -> str:
    """Render as Ollama does: ``.System`` is the system message's text, which is among ``.Messages`` too."""
    system = "\n\n".join(one["content"] for one in messages if one["role"] == "system")
    parts = _ACTION.split(template)
    tree, _ = _block(parts, 0)
    return _run(tree, {"system": system, "messages": list(messages)})


def _block(parts: list[str], at: int) -> tuple[list[Any], int]:
    """Read up to an ``end`` or ``else``; texts are at even places, actions at odd ones."""
    nodes: list[Any] = []
    while at < len(parts):
        if at % 2 == 0:
            nodes.append(("text", parts[at]))
            at += 1
            continue
        action = parts[at]
        if action == "end" or action.startswith("else"):
            return nodes, at
        if action.startswith(("if ", "range ")):
            node, at = _branches(parts, at)
            nodes.append(node)
        else:
            nodes.append(("value", action))
        at += 1
    return nodes, at


def _branches(parts: list[str], at: int) -> tuple[Any, int]:
    head = parts[at]
    body, at = _block(parts, at + 1)
    otherwise: list[Any] = []
    if parts[at].startswith("else if "):
        parts[at] = parts[at].removeprefix("else ")
        node, at = _branches(parts, at)
        return (head, body, [node]), at
    if parts[at] == "else":
        otherwise, at = _block(parts, at + 1)
    assert parts[at] == "end"
    return (head, body, otherwise), at


def _run(nodes: list[Any], scope: dict[str, Any]) -> str:
    text = ""
    for node in nodes:
        match node:
            case ("text", content):
                text += content
            case ("value", action):
                text += str(_value(action, scope))
            case ("range $i, $m := .Messages", body, _):
                for place, message in enumerate(scope["messages"]):
                    text += _run(body, {**scope, "i": place, "m": message})
            case (head, body, otherwise):
                text += _run(body if _holds(head.removeprefix("if "), scope) else otherwise, scope)
    return text


def _value(action: str, scope: dict[str, Any]) -> Any:
    return {".System": scope["system"], "$.System": scope["system"], "$m.Content": scope.get("m", {}).get("content")}[
        action
    ]


def _holds(condition: str, scope: dict[str, Any]) -> bool:
    left = len(scope["messages"]) - scope.get("i", 0)
    match condition:
        case ".System":
            return bool(scope["system"])
        case "and $.System (eq $i 1)":
            return bool(scope["system"]) and scope["i"] == 1
        case "eq (len (slice $.Messages $i)) 1":
            return left == 1
        case "gt (len (slice $.Messages $i)) 1":
            return left > 1
        case _:
            role = re.fullmatch(r'eq \$m\.Role "(\w+)"', condition)
            assert role, condition
            return scope["m"]["role"] == role[1]
