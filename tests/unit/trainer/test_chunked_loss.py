"""The loss in chunks is the loss."""

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from peft_studio.events import Metrics
from peft_studio.run_dir import RunDir
from peft_studio.trainer.chunked_loss import can_chunk, chunked_loss
from peft_studio.trainer.data import Row, collate
from peft_studio.trainer.loss import summed_loss
from peft_studio.trainer.outcome import DONE
from peft_studio.trainer.program import run as train
from peft_studio.trainer.stop import StopSignal
from tests.tiny import make_run
from tests.unit.trainer.test_architectures import ARCHITECTURES, model_of

OWN_WAY = {"gemma2", "granite", "cohere"}  # cap or scale their logits


def rows_of(*lengths: int) -> list[Row]:
    random = np.random.default_rng(0)
    return [Row(random.integers(3, 100, n), random.random(n) < 0.7) for n in lengths]


def frozen_head(name: str) -> Any:
    model = model_of(name)
    model.get_output_embeddings().requires_grad_(False)
    return model


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_only_where_the_head_gives_the_logits_the_loss_is_made_in_chunks(name: str) -> None:
    assert can_chunk(frozen_head(name), rows_of(9)[0]) == (name not in OWN_WAY)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES.keys() - OWN_WAY))
@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_losses_and_gradients_are_those_of_the_whole(name: str, chunk: int) -> None:
    model, batch = frozen_head(name), collate(rows_of(9, 4, 13))
    whole = summed_loss(model, batch, 0.1)
    whole.backward()
    expected = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    loss = summed_loss(model, batch, 0.1, chunk)
    (2 * loss).backward()
    assert loss.item() == pytest.approx(whole.item(), rel=1e-5)
    for key, gradient in expected.items():
        torch.testing.assert_close(model.get_parameter(key).grad, 2 * gradient, rtol=1e-4, atol=1e-5)


def test_the_logits_of_a_chunk_are_gone_before_the_next_are_made() -> None:
    head = torch.nn.Linear(8, 100, bias=False).requires_grad_(False)
    made: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []

    def look(_: Any, __: Any, logits: torch.Tensor) -> None:
        alive.append(sum(one() is not None for one in made))
        made.append(weakref.ref(logits))

    head.register_forward_hook(look)
    hidden = torch.randn(10, 8, requires_grad=True)
    chunked_loss(hidden, head, torch.arange(10), 4, 0.0).backward()
    assert alive == [0, 0, 0]
    assert hidden.grad is not None


def test_a_head_that_is_trained_is_not_bypassed() -> None:
    model = frozen_head("llama")
    model.get_output_embeddings().requires_grad_(True)
    assert not can_chunk(model, rows_of(9)[0])


def curve(run: RunDir) -> list[float]:
    return [event.metrics["loss"] for _, event in run.events() if isinstance(event, Metrics)]


@pytest.mark.parametrize(("precision", "noise"), [("float32", 1e-5), ("bfloat16", 1e-2)])
def test_training_is_the_same_in_chunks_and_in_one(
    precision: str, noise: float, tmp_path: Path, model: Path, rows: Path
) -> None:
    job: dict[str, Any] = {"dropout": 0, "num_epochs": 1, "precision": precision}
    runs = [make_run(tmp_path / str(n), model, rows, loss_chunk_tokens=n, **job) for n in (0, 3)]
    assert [train(run, StopSignal()) for run in runs] == [DONE, DONE]
    assert curve(runs[1]) == pytest.approx(curve(runs[0]), rel=noise)
    if precision == "float32":
        whole, chunked = (load_file(run.adapter / "adapter_model.safetensors") for run in runs)
        for name, weight in whole.items():
            torch.testing.assert_close(chunked[name], weight, rtol=1e-3, atol=1e-5)
