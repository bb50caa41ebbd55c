"""Adapters on one model, each row through its own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from infra.serving.adapter_files import BaseName, read_adapter
from infra.serving.lora import AdaptedLayers, LayerWeights, Slot
from tests.unit.serving.adapters import KINDS, Answerer, load

PROMPT = [5, 60, 7, 200, 31]


@pytest.fixture
def model(base_folder: Path) -> Any:
    return load(base_folder)


@pytest.fixture
def layers(model: Any) -> AdaptedLayers:
    return AdaptedLayers(model)


@pytest.fixture
def slots(model: Any, layers: AdaptedLayers, base_folder: Path, adapters: Mapping[str, Path]) -> dict[str, Slot]:
    base = BaseName(str(base_folder))
    return {name: layers.attach(read_adapter(folder, model, base).weights) for name, folder in adapters.items()}


def logits(model: Any, rows: int = 1) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([PROMPT] * rows)).logits


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_changes_the_model_as_stock_peft_does(
    kind: str, model: Any, layers: AdaptedLayers, slots: dict[str, Slot], stock: Answerer
) -> None:
    layers.route([slots[kind]], len(PROMPT))
    torch.testing.assert_close(logits(model)[0], stock.logits(kind, PROMPT), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits(model)[0], stock.logits(None, PROMPT), atol=0.05)


def test_each_row_of_a_mixed_batch_goes_through_its_own_adapter(
    model: Any, layers: AdaptedLayers, slots: dict[str, Slot], stock: Answerer
) -> None:
    names = [None, "dora", "lora", None, "rslora", "dora", "patterned"]
    layers.route([slots[name] if name else None for name in names], len(PROMPT))
    for row, name in zip(logits(model, len(names)), names, strict=True):
        torch.testing.assert_close(row, stock.logits(name, PROMPT), rtol=1e-4, atol=1e-4)


def test_the_base_model_is_itself_with_adapters_loaded(
    model: Any, layers: AdaptedLayers, slots: dict[str, Slot], stock: Answerer
) -> None:
    layers.route([None], len(PROMPT))
    assert torch.equal(logits(model)[0], stock.logits(None, PROMPT))


def test_an_adapter_takes_the_place_of_one_that_left(
    model: Any,
    layers: AdaptedLayers,
    slots: dict[str, Slot],
    stock: Answerer,
    base_folder: Path,
    adapters: Mapping[str, Path],
) -> None:
    layers.detach(slots["dora"])
    assert not layers.holds(slots["dora"])
    again = layers.attach(read_adapter(adapters["lora"], model, BaseName(str(base_folder))).weights)
    assert again.start == slots["dora"].start
    layers.route([again, slots["patterned"]], len(PROMPT))
    first, second = logits(model, 2)
    torch.testing.assert_close(first, stock.logits("lora", PROMPT), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(second, stock.logits("patterned", PROMPT), rtol=1e-4, atol=1e-4)


def test_there_is_room_for_any_number_of_adapters(model: Any, layers: AdaptedLayers, stock: Answerer) -> None:
    name = "model.layers.0.self_attn.q_proj"
    before = stock.logits(None, PROMPT)
    slots = [
        layers.attach({name: LayerWeights(torch.ones(20, 32), torch.full((20, 32), 0.01), torch.ones(32))})
        for _ in range(10)
    ]
    assert len({slot.start for slot in slots}) == len({slot.gain for slot in slots}) == 10
    layers.route([slots[9], slots[0], None], len(PROMPT))
    last, first, none = logits(model, 3)
    torch.testing.assert_close(last, first)
    assert not torch.allclose(last, before)
    torch.testing.assert_close(none, before, rtol=1e-4, atol=1e-4)
