"""
What a chat template puts around each message, found by rendering: before it, behind it, and before an answer.

A template is a program; most of them only put fixed texts around what is said. The texts are taken from renderings of
marked conversations, then put together again for others: only where that gives the template's own renderings, letter
for letter, is the form known. Of any other template ``chat_format`` returns None, rather than something close to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from jinja2 import TemplateError

Message = dict[str, str]
_MARKS = {"system": "Sa7Qk", "user": "Ub8Wj", "assistant": "Ac9Xh"}
_SECOND = {"user": "Ud1Yg", "assistant": "Ae2Zf"}


@dataclass(frozen=True)
class Around:
    """What stands before a message and behind it."""

    before: str
    behind: str


@dataclass(frozen=True)
class ChatFormat:
    """
    A template's fixed texts, without the token that begins every text, which the tokenizer adds.

    ``head`` stands before everything; ``default`` comes after it where there is no system message. A system message
    has its own place (``system``), or stands within the first of the user's (``in_user``: what is around it there),
    or has none.
    """

    user: Around
    assistant: Around
    answer: str
    head: str = ""
    default: str = ""
    system: Around | None = None
    in_user: Around | None = None
    begins: str = ""

    def render(self, messages: Sequence[Message]) -> str:
        """Render a conversation as the template would, up to where the next answer begins."""
        system = next((one["content"] for one in messages if one["role"] == "system"), None)
        text = self.begins + self.head
        if system is None:
            text += self.default
        elif self.system:
            text += self.system.before + system + self.system.behind
        said = [one for one in messages if one["role"] != "system"]
        for place, message in enumerate(said):
            around = self.user if message["role"] == "user" else self.assistant
            inner = ""
            if place == 0 and system is not None and self.in_user:
                inner = self.in_user.before + system + self.in_user.behind
            text += around.before + inner + message["content"] + around.behind
        return text + self.answer if said and said[-1]["role"] == "user" else text


def chat_format(tokenizer: Any) -> ChatFormat | None:
    """Find the fixed texts of a tokenizer's chat template; None where it has none, or is more than fixed texts."""
    user, answered, again = (
        _conversation("user"),
        _conversation("user", "assistant"),
        _conversation(*["user", "assistant"] * 2),
    )
    begins = tokenizer.bos_token or ""
    renderings = [_render(tokenizer, said, False) for said in (user, answered, again)]
    prompted = _render(tokenizer, user, True)
    if prompted is None or any(one is None for one in renderings):
        return None
    one, two, four = (str(rendering) for rendering in renderings)
    begins = begins if begins and one.startswith(begins) else ""
    found = _between(one, two, four, prompted)
    if found is None:
        return None
    found = replace(found, begins=begins, head=found.head.removeprefix(begins))
    for candidate in _with_system(tokenizer, found):
        if _agrees(tokenizer, candidate):
            return candidate
    return None


def turn_end(tokenizer: Any) -> str | None:
    """Return the token that the chat template puts right behind an answer; None where there is none."""
    rendered = _render(tokenizer, _conversation("user", "assistant"), False) if tokenizer.chat_template else None
    behind = (rendered or "").partition(_MARKS["assistant"])[2].lstrip()
    fitting = [token for token in tokenizer.get_added_vocab() if token and behind.startswith(token)]
    return max(fitting, key=len, default=None)


def _between(one: str, two: str, four: str, prompted: str) -> ChatFormat | None:
    """Cut renderings of one, two and four messages, and of one with the answer's beginning, at what was said."""
    said = [_MARKS["user"], _MARKS["assistant"], _SECOND["user"], _SECOND["assistant"]]
    pieces: list[str] = []
    rest = four
    for mark in said:
        piece, found, rest = rest.partition(mark)
        if not found:
            return None
        pieces.append(piece)
    first, to_answer, to_user, _ = pieces
    behind_user = one.partition(said[0])[2]
    behind_answer = two.partition(said[1])[2]
    if not (prompted.startswith(one) and to_answer.startswith(behind_user) and to_user.startswith(behind_answer)):
        return None
    before_user = to_user.removeprefix(behind_answer)
    if not first.endswith(before_user):
        return None
    return ChatFormat(
        user=Around(before_user, behind_user),
        assistant=Around(to_answer.removeprefix(behind_user), behind_answer),
        answer=prompted.removeprefix(one),
        head=first.removesuffix(before_user),
    )


def _with_system(tokenizer: Any, found: ChatFormat) -> list[ChatFormat]:
    """Return what the system message may look like, by where the template puts it."""
    rendered = _render(tokenizer, _conversation("system", "user"), False)
    mark = _MARKS["system"]
    if rendered is None or mark not in rendered:
        return [found]  # refused by the template, or left out of what it writes
    before, _, behind = rendered.removeprefix(found.begins).partition(mark)
    behind = behind.partition(_MARKS["user"])[0]
    ways: list[ChatFormat] = []
    if behind.endswith(found.user.before):
        around = Around(before, behind.removesuffix(found.user.before))
        ways.append(replace(found, head="", default=found.head, system=around))
    opening = found.head + found.user.before
    if before.startswith(opening):
        ways.append(replace(found, in_user=Around(before.removeprefix(opening), behind)))
    return ways


def _agrees(tokenizer: Any, form: ChatFormat) -> bool:
    """Whether a form gives the template's own renderings of conversations that it was not made from."""
    talks = [["user"], ["user", "assistant", "user"], ["user", "assistant"] * 2 + ["user"], ["user", "assistant"]]
    for roles in [*talks, *(["system", *roles] for roles in talks if form.system or form.in_user)]:
        words = (f"Said {place}: what is 7 + {place}, please?" for place in range(len(roles)))
        messages = [{"role": role, "content": content} for role, content in zip(roles, words, strict=True)]
        if _render(tokenizer, messages, roles[-1] == "user") != form.render(messages):
            return False
    return True


def _conversation(*roles: str) -> list[Message]:
    counted: dict[str, int] = {}
    messages: list[Message] = []
    for role in roles:
        counted[role] = counted.get(role, 0) + 1
        messages.append({"role": role, "content": (_MARKS if counted[role] == 1 else _SECOND)[role]})
    return messages


def _render(tokenizer: Any, messages: list[Message], answer: bool) -> str | None:
    """Render a conversation; None where the template refuses it, or there is none."""
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer)
    except (TemplateError, ValueError, TypeError, KeyError):
        return None
