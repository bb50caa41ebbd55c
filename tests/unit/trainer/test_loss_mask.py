import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peft_studio.config import TrainingConfig
from peft_studio.datasets import Example, Message
from peft_studio.errors import InvalidConfig
from peft_studio.plan import RowFormat
from peft_studio.trainer.data import Row, encode
from peft_studio.trainer.model import Base
from peft_studio.trainer.render import Renderer
from tests.tiny import TEMPLATE, tiny_tokenizer

# Like Qwen's: only the last answer has its reasoning with it.
REASONING = (
    "{% for message in messages %}<|{{ message.role }}|>\n"
    "{% if message.role == 'assistant' and loop.last %}(thinks)\n{% endif %}{{ message.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
COUNTING = (
    "{{ messages | length }}{% for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}"
)


class Config:
    eos_token_id = 1

    def get_text_config(self) -> Any:
        return self


def base_with(template: str | None) -> Base:
    return Base(source="", revision=None, config=Config(), tokenizer=tiny_tokenizer(template))


def encoded(example: Example, template: str | None = TEMPLATE, limit: int = 500) -> tuple[Base, Sequence[Row]]:
    base = base_with(template)
    return base, encode([example], base, Renderer(base.tokenizer, example.format), limit).rows


def text_and_answers(example: Example, template: str | None = TEMPLATE) -> tuple[str, str]:
    base, [row] = encoded(example, template)
    return base.tokenizer.decode(row.ids), base.tokenizer.decode(row.ids[row.learn])


def conversation(*contents: str) -> Example:
    roles = ("user", "assistant") * len(contents)
    turns = tuple(Message(role, content) for role, content in zip(roles, contents, strict=False))
    return Example(number=1, format=RowFormat.MESSAGES, messages=turns)


def test_every_answer_of_a_conversation_and_its_end_of_turn_carry_loss() -> None:
    text, answers = text_and_answers(conversation("who", "the cat", "where", "my house"))
    assert text == (
        "<s><|user|>\nwho<|end|>\n<|assistant|>\nthe cat<|end|>\n"
        "<|user|>\nwhere<|end|>\n<|assistant|>\nmy house<|end|>\n"
    )
    assert answers == "the cat<|end|>my house<|end|>"


def test_a_generation_block_in_the_template_changes_nothing() -> None:
    marked = TEMPLATE.replace(
        "{{ message.content }}<|end|>\n",
        "{% if message.role == 'assistant' %}{% generation %}{{ message.content }}<|end|>{% endgeneration %}"
        "{% else %}{{ message.content }}<|end|>{% endif %}{{ '\\n' }}",
    )
    assert text_and_answers(conversation("who", "the cat"), marked) == text_and_answers(conversation("who", "the cat"))


def test_answers_are_found_where_a_template_writes_only_the_last_one_with_reasoning() -> None:
    text, answers = text_and_answers(conversation("who", "the cat", "where", "my house"), REASONING)
    assert text.count("(thinks)") == 1
    assert answers == "the cat<|end|>(thinks)\nmy house<|end|>"


def test_a_template_that_gives_no_hold_is_refused_with_the_row() -> None:
    with pytest.raises(InvalidConfig, match="Row 1") as caught:
        encoded(conversation("who", "the cat", "where", "my house"), COUNTING)
    assert caught.value.details["row"] == 1


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("cohere", "<|END_OF_TURN_TOKEN|>"),
        ("deepseek_r1_distill", "<\uff5cend\u2581of\u2581sentence\uff5c>"),
        ("gemma3", "<end_of_turn>"),
        ("gptoss", "<|return|>"),
        ("lfm2", "<|im_end|>"),
        ("llama3_1", "<|eot_id|>"),
        ("phi3", "<|end|>"),
        ("qwen2_5", "<|im_end|>"),
        ("qwen3", "<|im_end|>"),
        ("qwen3_5_nothink", "<|im_end|>"),
    ],
)
def test_the_answers_are_found_in_the_templates_of_well_known_models(name: str, end: str) -> None:
    spec = importlib.util.find_spec("trl")
    assert spec is not None
    assert spec.origin is not None
    tokenizer = tiny_tokenizer((Path(spec.origin).parent / "chat_templates" / f"{name}.jinja").read_text())
    tokenizer.add_special_tokens({"additional_special_tokens": [end, "<|end|>", "<|channel|>", "<|message|>"]})
    renderer = Renderer(tokenizer, RowFormat.MESSAGES)
    assert renderer.end_of_turn() == end
    row = renderer.row(conversation("question one", "answer one", "question two", "answer two"))
    first, second = (row.text[start:stop] for start, stop in row.answers)
    assert first in ("answer one" + end, "answer one<|end|>")
    assert "answer two" + end in second
    assert row.closed
    assert "question" not in first + second


def test_an_answer_that_the_template_does_not_close_ends_the_text() -> None:
    plain = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    text, answers = text_and_answers(conversation("who", "the cat"), plain)
    assert text == "user: who\nassistant: the cat\n</s>"
    assert answers.endswith("the cat\n</s>")


def test_an_answer_that_is_not_to_be_learnt_is_read_and_carries_no_loss() -> None:
    example = conversation("who", "a dog", "who", "the cat")
    silent = replace(example.messages[1], is_learnt=False)
    example = replace(example, messages=(example.messages[0], silent, *example.messages[2:]))
    text, answers = text_and_answers(example)
    assert "a dog" in text and answers == "the cat<|end|>"
    plain = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    last = replace(example, messages=(*example.messages[2:], *example.messages[:2]))
    assert text_and_answers(last, plain)[1].endswith("the cat\n")


def test_a_template_that_leaves_out_what_is_said_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="leaves out"):
        encoded(conversation("who", "the cat"), "{% for message in messages %}<|{{ message.role }}|>{% endfor %}")


def test_what_a_template_itself_refuses_is_said_with_the_row() -> None:
    with pytest.raises(InvalidConfig, match="only one at a time"):
        encoded(conversation("who", "the cat"), "{{ raise_exception('only one at a time') }}")


def test_a_system_turn_carries_no_loss() -> None:
    turns = (Message("system", "be"), Message("user", "who"), Message("assistant", "the cat"))
    _, answers = text_and_answers(Example(number=1, format=RowFormat.MESSAGES, messages=turns))
    assert answers == "the cat<|end|>"


@pytest.mark.parametrize("template", [TEMPLATE, None])
def test_prompt_and_completion_are_joined_literally_and_the_completion_carries_loss(template: str | None) -> None:
    example = Example(number=1, format=RowFormat.PROMPT_COMPLETION, prompt="what is red: ", completion="the house")
    assert text_and_answers(example, template) == ("what is red: the house</s>", "the house</s>")


def test_a_token_that_prompt_and_completion_share_carries_loss() -> None:
    # " house" is one token: its space belongs to the prompt, the rest to the completion.
    example = Example(number=1, format=RowFormat.PROMPT_COMPLETION, prompt="my ", completion="house")
    assert text_and_answers(example) == ("my house</s>", " house</s>")


def test_an_instruction_goes_through_the_chat_template_where_there_is_one() -> None:
    example = Example(number=1, format=RowFormat.INSTRUCTION, prompt="who sleeps", input="a cat", completion="the cat")
    text, answers = text_and_answers(example)
    assert text == "<s><|user|>\nwho sleeps\n\na cat<|end|>\n<|assistant|>\nthe cat<|end|>\n"
    assert answers == "the cat<|end|>"


def test_an_instruction_has_its_usual_layout_where_there_is_no_chat_template() -> None:
    example = Example(number=1, format=RowFormat.INSTRUCTION, prompt="who sleeps", input="a cat", completion="the cat")
    text, answers = text_and_answers(example, None)
    assert text == "### Instruction:\nwho sleeps\n\n### Input:\na cat\n\n### Response:\nthe cat</s>"
    assert answers == "the cat</s>"


def test_all_of_a_plain_text_carries_loss_and_its_end_too() -> None:
    example = Example(number=1, format=RowFormat.TEXT, text="the cat sleeps")
    assert text_and_answers(example) == ("the cat sleeps</s>", "the cat sleeps</s>")


def test_messages_need_a_chat_template() -> None:
    with pytest.raises(InvalidConfig, match="no chat template"):
        Renderer(tiny_tokenizer(None), RowFormat.MESSAGES)


def test_long_rows_are_cut_and_rows_without_an_answer_left_are_left_out() -> None:
    base = base_with(TEMPLATE)
    some = [conversation("who", "the cat"), conversation("who", "the cat " * 50), conversation("who " * 50, "the cat")]
    result = encode(some, base, Renderer(base.tokenizer, RowFormat.MESSAGES), limit=20)
    assert [len(row.ids) <= 20 for row in result.rows] == [True, True]
    assert (result.truncated, result.dropped) == (2, 1)


def test_a_question_is_laid_out_as_in_training() -> None:
    tokenizer = tiny_tokenizer()
    example = conversation("who", "the cat")
    asked = "<s><|user|>\nwho<|end|>\n<|assistant|>\n"
    renderer = Renderer(tokenizer, RowFormat.MESSAGES)
    assert renderer.prompt("who") == renderer.prompt(example) == (asked, "who")
    assert renderer.row(example).text.startswith(asked)
    assert renderer.end_of_turn() == "<|end|>"


def test_a_base_model_without_an_end_of_text_token_is_refused() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(InvalidConfig, match="no end-of-text token"):
        _ = Base(source="", revision=None, config=object(), tokenizer=tokenizer).end


def test_the_model_configuration_names_the_end_of_text_where_the_tokenizer_does_not() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    assert Base(source="", revision=None, config=Config(), tokenizer=tokenizer).end == 1


def test_rows_are_cut_to_what_the_model_has_positions_for(model: Path) -> None:
    from peft_studio.trainer.model import read_base

    base = read_base(TrainingConfig(base_model=str(model), dataset_path="rows.jsonl"), None)
    assert base.longest(1024) == 128
    assert base.longest(100) == 100
