"""The fixed texts of chat templates, found by rendering, and the Go templates that are written from them."""

from typing import Any

import pytest

from peft_studio.errors import InvalidConfig
from peft_studio.exporter.chat_format import chat_format, turn_end
from peft_studio.exporter.modelfile import go_template, ollama_model
from tests.tiny import tiny_tokenizer
from tests.unit.exporter.chat_templates import COUNTING, FAMILIES, FORGETTING, GEMMA, LLAMA_3, ZEPHYR
from tests.unit.exporter.go_templates import render

ROLES = [
    ["user"],
    ["system", "user"],
    ["user", "assistant", "user"],
    ["system", "user", "assistant", "user", "assistant", "user"],
]


def tokenizer(template: str) -> Any:
    found = tiny_tokenizer(template)
    found.add_special_tokens({"additional_special_tokens": ["<|im_end|>", "<|eot_id|>", "<end_of_turn>"]})
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("roles", ROLES, ids=" ".join)
def test_the_go_template_writes_what_the_chat_template_writes(family: str, roles: list[str]) -> None:
    if family == "gemma" and "system" in roles:
        pytest.skip("Gemma's template refuses system messages")
    own = tokenizer(FAMILIES[family])
    form = chat_format(own)
    assert form
    messages = [{"role": role, "content": f"{role} {place}: why?"} for place, role in enumerate(roles)]
    expected = own.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert form.render(messages) == expected
    assert form.begins + render(go_template(form), messages) == expected


@pytest.mark.parametrize("template", [COUNTING, FORGETTING], ids=["counting", "forgetting"])
def test_a_template_that_is_more_than_fixed_texts_is_refused(template: str) -> None:
    with pytest.raises(InvalidConfig, match="more than put fixed texts"):
        ollama_model(tokenizer(template))


def test_answers_stop_where_the_template_ends_them() -> None:
    assert turn_end(tokenizer(LLAMA_3)) == "<|eot_id|>"
    assert turn_end(tokenizer(ZEPHYR)) == "</s>"
    assert ollama_model(tokenizer(GEMMA)).stops == ["<end_of_turn>", "</s>"]


def test_the_first_token_is_the_tokenizers_only_where_the_template_begins_with_it() -> None:
    assert ollama_model(tokenizer(LLAMA_3)).begins is True
    assert ollama_model(tokenizer(ZEPHYR)).begins is False


def test_a_modelfile_names_weights_template_and_stops() -> None:
    written = ollama_model(tokenizer(ZEPHYR)).modelfile("tiny.gguf")
    assert written.startswith('FROM ./tiny.gguf\nTEMPLATE """')
    assert written.endswith('"""\nPARAMETER stop "</s>"\n')


def test_a_model_without_a_chat_template_gets_prompts_as_they_are() -> None:
    talks = ollama_model(tiny_tokenizer(None))
    assert talks.template == "{{ .Prompt }}" and "no chat template" in talks.notes[0]
