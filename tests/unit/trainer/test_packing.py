"""Rows in one batch are as far apart as rows in a batch each, however they are laid out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from peft_studio.config import TrainingConfig
from peft_studio.events import Log, Metrics
from peft_studio.run_dir import RunDir
from peft_studio.trainer.adapter import adapter_config, add_adapter
from peft_studio.trainer.data import Row, batches, collate, divided, within
from peft_studio.trainer.layers import skeleton
from peft_studio.trainer.loss import summed_loss
from peft_studio.trainer.model import load_base, read_base
from peft_studio.trainer.noise import noisy_embeddings
from peft_studio.trainer.outcome import DONE
from peft_studio.trainer.packing import can_pack, pack, rows_apart
from peft_studio.trainer.products import fast_products
from peft_studio.trainer.program import run as train
from peft_studio.trainer.stop import StopSignal
from tests.tiny import make_run
from tests.unit.trainer.test_products import AMD

SMALL = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
PACKED: dict[str, dict[str, Any]] = {
    "llama": {"intermediate_size": 64, "num_key_value_heads": 2},
    "mistral": {"intermediate_size": 64, "num_key_value_heads": 2, "sliding_window": None},
    "qwen2": {"intermediate_size": 64, "num_key_value_heads": 2},
    "qwen3": {"intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8},
    "gemma": {"intermediate_size": 64, "num_key_value_heads": 1, "head_dim": 8},
    "phi3": {"intermediate_size": 64, "num_key_value_heads": 2, "pad_token_id": 0},
    "gpt2": {},
    "gpt_neox": {"intermediate_size": 64},
}
UNPACKED: dict[str, dict[str, Any]] = {
    "mamba": {"state_size": 4},  # carries a state from row to row
    "bloom": {},  # takes no positions
    "gemma2": {"intermediate_size": 64, "num_key_value_heads": 1, "head_dim": 8},  # needs eager attention
}


def rows_of(*lengths: int) -> list[Row]:
    random = np.random.default_rng(0)
    return [Row(random.integers(3, 100, n), random.random(n) < 0.7) for n in lengths]


def model_of(name: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **{**SMALL, **settings})).eval()


def config(**fields: Any) -> TrainingConfig:
    return TrainingConfig.model_validate({"base_model": "m", "dataset_path": "d"} | fields)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("name", PACKED)
def test_a_packed_batch_gives_the_losses_and_gradients_of_its_rows_one_at_a_time(name: str, fast: bool) -> None:
    model, rows = model_of(name, **PACKED[name]), rows_of(9, 4, 17, 2)
    assert can_pack(model, rows, config())
    alone = [summed_loss(model, collate([row])) for row in rows]
    torch.stack(alone).sum().backward()
    one_at_a_time = gradients(model)
    model.zero_grad()
    batch = pack(rows)
    with fast_products(fast, processor=AMD), rows_apart(model, batch):
        packed = summed_loss(model, batch)
        packed.backward()
    assert packed.item() == pytest.approx(sum(loss.item() for loss in alone), rel=1e-5)
    for gradient, expected in zip(gradients(model).values(), one_at_a_time.values(), strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


def test_a_row_does_not_see_the_one_before_it(model: Path) -> None:
    llama = model_of("llama", **PACKED["llama"])
    first, other, second = rows_of(9, 9, 7)
    silent = [Row(row.ids, np.zeros(9, dtype=np.bool_)) for row in (first, other)]
    losses: list[float] = []
    for before in silent:
        batch = pack([before, second])
        with rows_apart(llama, batch):
            losses.append(summed_loss(llama, batch).item())
    assert losses[0] == losses[1]


def test_attention_is_as_before_when_a_packed_batch_is_done() -> None:
    llama = model_of("llama", **PACKED["llama"])
    with rows_apart(llama, pack(rows_of(3, 4))):
        assert llama.config._attn_implementation != "sdpa"
    assert llama.config._attn_implementation == "sdpa"


def test_attention_in_packed_rows_drops_out_what_the_model_is_set_to_drop() -> None:
    llama = model_of("llama", **PACKED["llama"], attention_dropout=0.5).train()
    batch, losses = pack(rows_of(9, 4)), set[float]()
    with fast_products(processor=AMD), rows_apart(llama, batch):
        for seed in (0, 1):
            torch.manual_seed(seed)
            losses.add(summed_loss(llama, batch).item())
    assert len(losses) == 2


@pytest.mark.filterwarnings("ignore")  # of kernels that are not there
@pytest.mark.parametrize("name", UNPACKED)
def test_an_architecture_that_would_leak_is_not_packed(name: str) -> None:
    assert not can_pack(model_of(name, **UNPACKED[name]), rows_of(9, 12), config())


def test_rows_longer_than_the_attention_window_are_not_packed() -> None:
    mistral = model_of("mistral", **PACKED["mistral"] | {"sliding_window": 8})
    assert can_pack(mistral, rows_of(8, 5), config())
    assert not can_pack(mistral, rows_of(9, 5), config())


def test_packing_can_be_switched_off_and_is_off_behind_virtual_tokens() -> None:
    llama = model_of("llama", **PACKED["llama"])
    assert not can_pack(llama, rows_of(9, 5), config(packing=False))
    assert not can_pack(llama, rows_of(9, 5), config(algorithm="prompt_tuning"))


def test_trying_packing_out_draws_no_random_number() -> None:
    llama = model_of("llama", **PACKED["llama"], attention_dropout=0.5).train()
    torch.manual_seed(3)
    assert can_pack(llama, rows_of(9, 5), config())
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1))
    assert llama.training


def test_noise_on_the_embeddings_is_as_strong_in_a_packed_batch() -> None:
    llama = model_of("llama", **PACKED["llama"])
    embedding, batch = llama.get_input_embeddings(), pack(rows_of(4, 16))
    plain = embedding(batch.ids)
    with noisy_embeddings(llama, batch, 5.0):
        difference = (embedding(batch.ids) - plain).abs()[0]
    for part, length in ((difference[:4], 4), (difference[4:], 16)):
        most = 5 / (length * 32) ** 0.5
        assert 0.9 * most < part.max() <= most * 1.0001


def curve(run: RunDir) -> list[float]:
    return [event.metrics["loss"] for _, event in run.events() if isinstance(event, Metrics)]


LAYOUTS: list[dict[str, bool]] = [{}, {"packing": False}, {"packing": False, "group_by_length": False}]


def test_training_is_the_same_however_rows_are_laid_out(tmp_path: Path, model: Path, rows: Path) -> None:
    runs = [make_run(tmp_path / str(i), model, rows, dropout=0, **layout) for i, layout in enumerate(LAYOUTS)]
    assert [train(run, StopSignal()) for run in runs] == [DONE] * 3
    first, *others = (load_file(run.adapter / "adapter_model.safetensors") for run in runs)
    for run, weights in zip(runs[1:], others, strict=True):
        assert curve(run) == pytest.approx(curve(runs[0]), rel=1e-5)
        for name, weight in weights.items():
            torch.testing.assert_close(weight, first[name], rtol=1e-3, atol=1e-5)
    said = [[e.message for _, e in run.events() if isinstance(e, Log)] for run in runs]
    assert [next(line for line in lines if " rows, " in line) for lines in said] == [
        "14 rows, 8 steps, packed",
        "14 rows, 8 steps",
        "14 rows, 8 steps",
    ]


def test_rows_of_like_length_come_into_one_batch() -> None:
    rows = rows_of(9, 2, 8, 3)
    assert [[len(row.ids) for row in some] for some in batches(rows, 2, by_length=True)] == [[9, 8], [3, 2]]
    assert [[len(row.ids) for row in some] for some in batches(rows, 2, by_length=False)] == [[9, 2], [8, 3]]


@pytest.mark.parametrize(("algorithm", "packs"), [("lora", True), ("oft", True), ("lily", False)])
def test_an_adapter_that_mixes_the_rows_of_a_batch_is_not_packed(algorithm: str, packs: bool, model: Path) -> None:
    job = config(base_model=str(model), algorithm=algorithm)
    base = read_base(job, None)
    adapted = add_adapter(load_base(base, job), adapter_config(job, base, skeleton(base.config), 1), base, job)
    before = {name: parameter.clone() for name, parameter in adapted.named_parameters()}
    assert can_pack(adapted, rows_of(20, 30), job) is packs
    assert all(torch.equal(parameter, before[name]) for name, parameter in adapted.named_parameters())


def test_a_packed_batch_is_divided_where_it_is_long() -> None:
    rows = [Row(np.arange(length), np.ones(length, dtype=np.bool_)) for length in (5, 4, 3, 20, 1, 1)]
    parts = within(rows, 10)
    assert [[len(row.ids) for row in part] for part in parts] == [[5, 4], [3], [20], [1, 1]]


def test_of_a_step_the_longest_part_comes_first() -> None:
    batches = [rows_of(5, 4, 3), rows_of(20, 1, 1)]
    assert [[len(row.ids) for row in part] for part in divided(batches, 10)] == [[20], [5, 4], [3], [1, 1]]
