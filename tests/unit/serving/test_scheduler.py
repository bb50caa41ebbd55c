"""Continuous batching: who is answered when, and that company changes nobody's answer."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from infra.serving.adapter_files import BaseName, read_adapter
from infra.serving.generation import Generation, Piece
from infra.serving.lora import AdaptedLayers, Slot
from infra.serving.sampling import Sampling
from infra.serving.scheduler import Limits, Scheduler
from peft_studio.errors import InternalError, RateLimitExceeded, ResourceUnavailable
from tests.tiny import tiny_tokenizer
from tests.unit.serving.adapters import KINDS, Answerer, load, make_adapter

NO_END: frozenset[int] = frozenset()


class Served:
    """A model with its adapters, and what came of what it was asked."""

    def __init__(self, base_folder: Path, adapters: Mapping[str, Path]):
        self.model = load(base_folder)
        self.layers = AdaptedLayers(self.model)
        base = BaseName(str(base_folder))
        self.slots: dict[str | None, Slot | None] = {None: None}
        for name, folder in adapters.items():
            self.slots[name] = self.layers.attach(read_adapter(folder, self.model, base).weights)
        self.tokenizer = tiny_tokenizer()
        self.pieces: dict[Generation, list[Piece]] = {}

    def scheduler(self, **limits: int) -> Scheduler:
        return Scheduler(self.model, self.layers, self.tokenizer, Limits(**limits))

    def step(self, scheduler: Scheduler) -> None:
        for generation, piece in scheduler.step():
            self.pieces.setdefault(generation, []).append(piece)

    def run(self, scheduler: Scheduler) -> None:
        while not scheduler.is_idle:
            self.step(scheduler)

    def ask(self, adapter: str | None, prompt: Sequence[int], count: int, **options: Any) -> Generation:
        return Generation(prompt, self.slots[adapter], count, options.pop("ends", NO_END), **options)

    def text(self, generation: Generation) -> str:
        return "".join(piece.text for piece in self.pieces[generation])

    def last(self, generation: Generation) -> Piece:
        return self.pieces[generation][-1]


@pytest.fixture
def served(base_folder: Path, adapters: Mapping[str, Path]) -> Served:
    return Served(base_folder, adapters)


def prompt(words: random.Random, longest: int = 30) -> list[int]:
    return [words.randrange(6, 300) for _ in range(words.randint(1, longest))]


@pytest.mark.parametrize("seed", range(3))
def test_answers_in_a_changing_mixed_batch_are_those_given_one_at_a_time(
    seed: int, served: Served, stock: Answerer
) -> None:
    chance = random.Random(seed)
    asked = {
        served.ask(adapter, prompt(chance), chance.randint(1, 25)): adapter
        for adapter in chance.choices([None, *KINDS], k=20)
    }
    scheduler = served.scheduler(rows=6)
    to_come = list(asked)
    while to_come or not scheduler.is_idle:
        if to_come and chance.random() < 0.5:
            scheduler.add(to_come.pop())
        served.step(scheduler)
    for generation, adapter in asked.items():
        alone = stock.tokens(adapter, generation.prompt, generation.max_tokens)
        assert generation.generated == alone
        assert served.text(generation) == served.tokenizer.decode(alone, skip_special_tokens=True)
        assert served.last(generation).finish_reason == "length"


def test_a_long_prompt_is_read_in_slices_while_others_are_answered(served: Served, stock: Answerer) -> None:
    chance = random.Random(7)
    scheduler = served.scheduler(rows=32)
    first = served.ask("lora", prompt(chance), 30)
    scheduler.add(first)
    served.step(scheduler)
    longer = [served.ask("dora", [chance.randrange(6, 300) for _ in range(90 + n)], 5) for n in range(12)]
    for generation in longer:
        scheduler.add(generation)
    served.step(scheduler)
    served.step(scheduler)
    assert len(first.generated) > 1  # it went on
    assert not any(generation.generated for generation in longer)  # before the others had begun
    served.run(scheduler)
    for generation in longer:
        assert generation.generated == stock.tokens("dora", generation.prompt, 5)
    assert first.generated == stock.tokens("lora", first.prompt, 30)


def test_requests_are_taken_in_order_as_rows_allow(served: Served) -> None:
    scheduler = served.scheduler(rows=2)
    asked = [served.ask(None, [9, 9], 4) for _ in range(5)]
    for generation in asked:
        scheduler.add(generation)
    served.step(scheduler)
    assert [len(generation.generated) for generation in asked] == [1, 1, 0, 0, 0]
    assert (scheduler.running, scheduler.waiting) == (2, 3)
    served.run(scheduler)
    assert [len(generation.generated) for generation in asked] == [4] * 5


def test_no_more_is_taken_on_than_the_cache_has_room_for(served: Served) -> None:
    scheduler = served.scheduler(cache_tokens=30)
    for _ in range(4):
        scheduler.add(served.ask(None, [9] * 5, 5))
    served.step(scheduler)
    assert scheduler.running == 3
    with pytest.raises(ResourceUnavailable):
        scheduler.add(served.ask(None, [9] * 20, 20))


def test_a_full_queue_is_said_at_once(served: Served) -> None:
    scheduler = served.scheduler(queue=2)
    for _ in range(2):
        scheduler.add(served.ask(None, [9], 1))
    with pytest.raises(RateLimitExceeded) as refused:
        scheduler.add(served.ask(None, [9], 1))
    assert refused.value.details["retry_after_seconds"] == 1


def test_a_request_that_nobody_waits_for_leaves_the_batch(served: Served, stock: Answerer) -> None:
    scheduler = served.scheduler()
    gone, stays = served.ask("lora", [9, 8, 7, 6, 5], 50), served.ask("rslora", [7], 8)
    scheduler.add(gone)
    scheduler.add(stays)
    served.step(scheduler)
    gone.cancelled = True
    served.step(scheduler)
    assert scheduler.running == 1
    served.run(scheduler)
    assert len(gone.generated) == 1
    assert stays.generated == stock.tokens("rslora", [7], 8)


def test_an_end_token_ends_the_answer_and_is_not_shown(served: Served, stock: Answerer) -> None:
    tokens = stock.tokens("lora", [9, 50], 10)
    end = tokens[4]
    generation = served.ask("lora", [9, 50], 10, ends=frozenset([end]))
    scheduler = served.scheduler()
    scheduler.add(generation)
    served.run(scheduler)
    assert generation.generated == tokens[: tokens.index(end) + 1]
    assert served.text(generation) == served.tokenizer.decode(generation.generated[:-1], skip_special_tokens=True)
    assert served.last(generation).finish_reason == "stop"


def test_a_stop_string_ends_the_answer_before_it(served: Served, stock: Answerer) -> None:
    whole = served.tokenizer.decode(stock.tokens(None, [9, 50, 3], 20), skip_special_tokens=True)
    stop = whole[5:8]
    generation = served.ask(None, [9, 50, 3], 20, stops=(stop,))
    scheduler = served.scheduler()
    scheduler.add(generation)
    served.run(scheduler)
    assert served.text(generation) == whole[: whole.index(stop)]
    assert served.last(generation).finish_reason == "stop"


def test_the_same_seed_gives_the_same_answer_in_any_company(served: Served) -> None:
    def drawn(company: int) -> list[int]:
        generation = served.ask("lora", [9, 50], 12, sampling=Sampling(1.0, 0.9, seed=5))
        scheduler = served.scheduler()
        for number in range(company):
            scheduler.add(served.ask("dora", [8 + number], 20, sampling=Sampling(1.0, seed=number)))
        scheduler.add(generation)
        served.run(scheduler)
        return generation.generated

    assert drawn(0) == drawn(3)


def test_logprobs_are_those_of_the_model(served: Served, stock: Answerer) -> None:
    generation = served.ask("dora", [9, 50], 3, sampling=Sampling(logprobs=2))
    scheduler = served.scheduler()
    scheduler.add(generation)
    served.run(scheduler)
    told = [token for piece in served.pieces[generation] for token in piece.tokens]
    logits = stock.logits("dora", [9, 50, *generation.generated[:-1]])[1:]
    for token, row, chosen in zip(told, logits.log_softmax(-1), generation.generated, strict=True):
        assert token.logprob == pytest.approx(float(row[chosen]), abs=1e-4)
        assert [logprob for _, logprob in token.top] == pytest.approx(row.topk(2).values.tolist(), abs=1e-4)


def test_requests_to_an_adapter_that_was_unloaded_end_with_an_error(served: Served) -> None:
    scheduler = served.scheduler(rows=1)
    answering, waiting, other = served.ask("lora", [9], 20), served.ask("lora", [9], 20), served.ask(None, [9], 3)
    for generation in (answering, waiting, other):
        scheduler.add(generation)
    served.step(scheduler)
    slot = served.slots["lora"]
    assert slot is not None
    scheduler.fail(ResourceUnavailable("gone"), lambda generation: generation.slot is slot)
    served.layers.detach(slot)
    late = served.ask("lora", [9], 20)
    scheduler.add(late)
    served.run(scheduler)
    for generation in (answering, waiting, late):
        assert isinstance(served.last(generation).error, ResourceUnavailable)
    assert served.last(other).finish_reason == "length"


def test_a_step_that_fails_ends_its_requests_and_no_others(served: Served) -> None:
    scheduler = served.scheduler()
    broken = served.ask(None, [10**6], 3)  # no such token
    scheduler.add(broken)
    served.run(scheduler)
    assert isinstance(served.last(broken).error, InternalError)
    after = served.ask(None, [9], 3)
    scheduler.add(after)
    served.run(scheduler)
    assert len(after.generated) == 3
    assert torch.is_grad_enabled()


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 8, "num_key_value_heads": 2},
    "qwen3": {"head_dim": 8, "num_key_value_heads": 2},
    "gemma2": {"sliding_window": 8, "head_dim": 8, "query_pre_attn_scalar": 8},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},  # its layers are no nn.Linear
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},  # its feed-forward layers see tokens without rows
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_models_of_other_makes_answer_in_a_batch_as_alone(architecture: str, tmp_path: Path) -> None:
    tiny_model_of(architecture, tmp_path / "base", **ARCHITECTURES[architecture])
    adapter = {"dora": make_adapter(tmp_path / "dora", tmp_path / "base", seed=1, use_dora=True)}
    served, stock = Served(tmp_path / "base", adapter), Answerer(tmp_path / "base", adapter)
    chance = random.Random(0)
    asked = {served.ask(name, prompt(chance), 10): name for name in [None, "dora", "dora", None, "dora"]}
    scheduler = served.scheduler()
    for generation in asked:
        scheduler.add(generation)
        served.step(scheduler)
    served.run(scheduler)
    for generation, name in asked.items():
        assert generation.generated == stock.tokens(name, generation.prompt, 10)


def tiny_model_of(architecture: str, folder: Path, **changes: Any) -> None:
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    if architecture == "gpt2":
        shape = {}
    common = {
        "vocab_size": 305,
        "max_position_embeddings": 128,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **shape, **common, **changes))
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.15)  # so that answers differ from each other
    model.save_pretrained(folder)
