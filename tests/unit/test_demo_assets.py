import json
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from demo.make_dataset import make_rows, read_parts
from peft_studio.config import TrainingConfig

DEMO = Path(__file__).parents[2] / "demo"
QUESTION = {"role": "user", "content": "My H100 pod is slow."}
ANSWER = {"role": "assistant", "content": "team: compute"}


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(DEMO / "model", dtype=torch.float32)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(DEMO / "model")


@pytest.fixture(scope="module")
def rows() -> list[dict[str, list[dict[str, str]]]]:
    return [json.loads(line) for line in (DEMO / "support.jsonl").read_text().splitlines()]


def test_the_model_is_small_enough_for_the_repository():
    assert (DEMO / "model" / "model.safetensors").stat().st_size <= 4_000_000


def test_the_model_has_the_layers_that_adapters_go_to(model: PreTrainedModel):
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    assert {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"} <= names
    assert model.config.max_position_embeddings >= 512


def test_the_model_knows_text_better_than_chance(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast):
    text = "It was the first time that she had seen him since the ball, and she was very glad of it."
    ids = tokenizer(text, return_tensors="pt").input_ids
    by_chance = torch.log(torch.tensor(model.config.vocab_size))
    assert model(input_ids=ids, labels=ids).loss < 0.75 * by_chance


def test_the_chat_template_marks_turns_and_asks_for_the_next(tokenizer: PreTrainedTokenizerFast):
    system = {"role": "system", "content": "Be brief."}
    whole = tokenizer.apply_chat_template([system, QUESTION, ANSWER], tokenize=False)
    asked = tokenizer.apply_chat_template([system, QUESTION], tokenize=False, add_generation_prompt=True)
    assert whole == f"{asked}team: compute{tokenizer.eos_token}"
    assert asked.startswith(f"{tokenizer.bos_token}<|system|>Be brief.")


def test_the_chat_template_says_which_tokens_the_assistant_speaks(tokenizer: PreTrainedTokenizerFast):
    encoded = tokenizer.apply_chat_template(
        [QUESTION, ANSWER], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    spoken = [token for token, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if mask]
    assert tokenizer.decode(spoken) == f"team: compute{tokenizer.eos_token}"


def test_the_model_answers_and_the_tokenizer_gives_text_back(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
):
    text = "Grace pays $417 for an H100 in Tokyo.\nIs that right?"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text
    prompt = tokenizer.apply_chat_template(
        [QUESTION], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    assert model.generate(**prompt, max_new_tokens=8).shape[1] > prompt["input_ids"].shape[1]


def test_the_data_set_has_enough_rows_and_none_twice(rows: list[dict[str, list[dict[str, str]]]]):
    asked = [row["messages"][0]["content"] for row in rows]
    assert len(rows) >= 300
    assert len(set(asked)) == len(rows)


def test_every_row_is_one_question_and_a_triage_in_three_lines(rows: list[dict[str, list[dict[str, str]]]]):
    for row in rows:
        question, answer = row["messages"]
        assert (question["role"], answer["role"]) == ("user", "assistant")
        assert [line.partition(": ")[0] for line in answer["content"].splitlines()] == ["team", "urgency", "reply"]
        assert "{" not in question["content"] + answer["content"]


def test_the_data_set_in_the_repository_is_what_its_program_makes(rows: list[dict[str, list[dict[str, str]]]]):
    assert rows == make_rows(read_parts())


def test_no_row_is_longer_than_the_model_can_read(
    tokenizer: PreTrainedTokenizerFast, rows: list[dict[str, list[dict[str, str]]]]
):
    longest = max(len(tokenizer.apply_chat_template(row["messages"], tokenize=False)) for row in rows)
    assert longest < 512  # characters: no token is shorter than one


def test_the_job_is_one_that_the_studio_accepts():
    config = TrainingConfig.model_validate(yaml.safe_load((DEMO / "job.yaml").read_text()))
    assert (DEMO.parent / config.base_model / "config.json").is_file()
    assert (DEMO.parent / config.dataset_path).is_file()
    assert config.test_prompt
