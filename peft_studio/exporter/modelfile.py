"""
An Ollama model's description: the chat template in Go's words, and where answers stop.

Ollama's templates are Go's ``text/template`` (https://docs.ollama.com/template): ``.Messages`` has all messages,
``.System`` what the system message says. Only a chat template whose fixed texts are known is written in them.
"""

import re
from dataclasses import dataclass
from typing import Any

from peft_studio.errors import InvalidConfig
from peft_studio.exporter.chat_format import Around, ChatFormat, chat_format, turn_end

_STOPS = r'(?P<rest>(?:PARAMETER stop "[^"]*"\n)*)'
_WRITTEN = re.compile(rf'FROM \./(?P<weights>[^/\n]+)\nTEMPLATE """(?P<template>.*?)"""\n{_STOPS}', re.DOTALL)
_STOP = re.compile('PARAMETER stop "([^"]*)"\n')
_BARE = "{{ .Prompt }}"


@dataclass(frozen=True)
class OllamaModel:
    """How an Ollama model talks; ``begins``: whether the token that begins a text is the tokenizer's to put there."""

    template: str
    stops: list[str]
    begins: bool | None
    notes: list[str]

    def modelfile(self, weights: str) -> str:
        """Write the Modelfile of a model with these weights, a file beside it."""
        stops = "".join(f'PARAMETER stop "{stop}"\n' for stop in self.stops)
        return f'FROM ./{weights}\nTEMPLATE """{self.template}"""\n{stops}'


def read_modelfile(text: str) -> tuple[str, str, list[str]]:
    """Return the name of the weights, the template and the stops of a Modelfile that ``modelfile`` has written."""
    found = _WRITTEN.fullmatch(text)
    if found is None:
        raise InvalidConfig("This Modelfile was not written by the studio; export the adapter again.", field="files")
    return found["weights"], found["template"], _STOP.findall(found["rest"])


def ollama_model(tokenizer: Any) -> OllamaModel:
    """
    Say how a model with this tokenizer talks.

    Raises ``InvalidConfig`` for a chat template that is more than fixed texts around what is said.
    """
    ends = [token for token in (turn_end(tokenizer), tokenizer.eos_token) if token]
    stops = [stop for stop in dict.fromkeys(ends) if '"' not in stop]
    if not tokenizer.chat_template:
        note = "The model has no chat template: prompts go to it as they are."
        return OllamaModel(_BARE, stops, None, [note])
    form = chat_format(tokenizer)
    if form is None:
        raise _refused(
            "its chat template does more than put fixed texts around messages, and what Ollama would make of it would "
            "not be what the adapter was trained on; export it as gguf, for programs that read the template itself"
        )
    notes = (
        [] if form.system or form.in_user else ["The chat template has no place for a system message: none is sent."]
    )
    return OllamaModel(go_template(form), stops, bool(form.begins), notes)


def go_template(form: ChatFormat) -> str:
    """Write a chat template's fixed texts as Go's; what begins a text is left to the tokenizer."""
    pieces = [form.head, form.default, form.answer]
    for around in (form.user, form.assistant, form.system, form.in_user):
        pieces += [around.before, around.behind] if around else []
    if any(mark in piece for piece in pieces for mark in ("{{", "}}", '"""')):
        raise _refused("its chat template writes braces or quotes that a Modelfile cannot hold")
    start = form.head
    if form.system:
        start += "{{ if .System }}" + _around(form.system, "{{ .System }}") + "{{ else }}" + form.default + "{{ end }}"
    else:
        start += form.default
    inner = ""
    if form.in_user:  # the system message is the first, and the user's first comes behind it
        inner = "{{ if and $.System (eq $i 1) }}" + _around(form.in_user, "{{ $.System }}") + "{{ end }}"
    user = _around(form.user, inner + "{{ $m.Content }}")
    last = "{{ if eq (len (slice $.Messages $i)) 1 }}" + form.answer + "{{ end }}"
    assistant = form.assistant.before + "{{ $m.Content }}"
    goes_on = "{{ if gt (len (slice $.Messages $i)) 1 }}" + form.assistant.behind + "{{ end }}"
    return (
        f'{start}{{{{ range $i, $m := .Messages }}}}{{{{ if eq $m.Role "user" }}}}{user}{last}'
        f'{{{{ else if eq $m.Role "assistant" }}}}{assistant}{goes_on}{{{{ end }}}}{{{{ end }}}}'
    )


def _around(around: Around, inner: str) -> str:
    return around.before + inner + around.behind


def _refused(issue: str) -> InvalidConfig:
    return InvalidConfig.of("format", issue)
