"""Kernels of others: chosen by what a machine is and a job asks for; on a GPU they compute what stock code does."""

from pathlib import Path
from typing import Any

import pytest
import torch

from peft_studio.config import TrainingConfig
from peft_studio.trainer.data import Batch, Row, collate
from peft_studio.trainer.kernels import Choice, Hardware, choose, hardware, is_flash, use_kernels
from peft_studio.trainer.loss import summed_loss
from peft_studio.trainer.model import load_base, read_base
from peft_studio.trainer.packing import pack, rows_apart
from tests.tiny import make_run, tiny_model

H100 = Hardware(capability=(9, 0), has_flash=True, has_liger=True)


def job(**fields: Any) -> TrainingConfig:
    return TrainingConfig(base_model="m", dataset_path="d", **fields)


def test_a_lora_in_bfloat16_on_a_new_gpu_takes_all_kernels() -> None:
    assert choose(job(), torch.bfloat16, H100) == Choice(flash=True, liger=True, reasons=())
    assert choose(job(algorithm="qlora"), torch.bfloat16, H100) == Choice(flash=True, liger=True, reasons=())


@pytest.mark.parametrize(
    ("fields", "dtype", "on", "flash", "liger", "why"),
    [
        ({"fast_kernels": False}, torch.bfloat16, H100, False, False, "turns"),
        ({}, torch.float32, H100, False, True, "16 bits"),
        ({}, torch.float16, Hardware((7, 5), True, True), False, True, "this one's is 7.5"),
        ({}, torch.bfloat16, Hardware((6, 1), True, True), False, False, "Triton"),
        ({}, torch.bfloat16, Hardware((9, 0), False, True), False, True, "flash-attn is not installed"),
        ({}, torch.bfloat16, Hardware((9, 0), True, False), True, False, "liger-kernel is not installed"),
        ({"algorithm": "prompt_tuning"}, torch.bfloat16, H100, False, False, "before the text"),
        ({"algorithm": "oft"}, torch.bfloat16, H100, True, False, "not with oft"),
        ({"objective": "embedding"}, torch.bfloat16, H100, False, True, "embedding lays rows out"),
    ],
)
def test_what_cannot_be_used_is_said_with_the_reason(
    fields: dict[str, Any], dtype: torch.dtype, on: Hardware, flash: bool, liger: bool, why: str
) -> None:
    found = choose(job(**fields), dtype, on)
    assert (found.flash, found.liger) == (flash, liger)
    assert why in " ".join(found.reasons)
    assert len(found.reasons) == 2 - flash - liger


def test_attention_that_keeps_rows_apart_is_known_by_its_name() -> None:
    assert is_flash("flash_attention_2") and is_flash("kernels-community/flash-attn2")
    assert not is_flash("sdpa") and not is_flash("eager")


@pytest.mark.skipif(hardware() is not None, reason="there is a GPU")
def test_without_a_gpu_nothing_is_changed_and_nothing_said(tmp_path: Path, model: Path, rows: Path) -> None:
    config = make_run(tmp_path / "run", model, rows).read_config()
    base, said = load_base(read_base(config, None), config), list[str]()
    before = [type(module).forward for module in base.modules()]
    use_kernels(base, config, said.append)
    assert said == []
    assert base.config._attn_implementation == "sdpa"
    assert [type(module).forward for module in base.modules()] == before


@pytest.mark.skipif(hardware() is None, reason="Liger's kernels and FlashAttention compute on NVIDIA GPUs alone")
def test_on_a_gpu_losses_and_gradients_are_those_of_stock_code(tmp_path: Path, rows: Path) -> None:
    model = tiny_model(tmp_path / "model", hidden_size=64, intermediate_size=128)
    run = make_run(tmp_path / "run", model, rows, precision="bfloat16")
    config, texts = run.read_config(), [_row(24), _row(17)]
    stock, fast = (load_base(read_base(config, None), config) for _ in range(2))
    said: list[str] = []
    use_kernels(fast, config, said.append)
    assert said
    expected, direction = _loss_and_gradient(stock, [collate([row], stock.device) for row in texts])
    found, ours = _loss_and_gradient(fast, [pack(texts, fast.device)])
    assert found == pytest.approx(expected, rel=1e-2)
    assert torch.cosine_similarity(ours, direction, dim=0) > 0.99


def _row(length: int) -> Row:
    ids = torch.arange(3, 3 + length).numpy()
    return Row(ids, ids > 3)


def _loss_and_gradient(model: Any, some: list[Batch]) -> tuple[float, torch.Tensor]:
    """Return the loss of some batches, and its gradient by one layer's weights."""
    weight, total = model.model.layers[0].mlp.up_proj.weight, torch.zeros((), device=model.device)
    gradient = torch.zeros_like(weight)
    for batch in some:
        with rows_apart(model, batch):
            loss = summed_loss(model, batch)
            gradient += torch.autograd.grad(loss, weight)[0]
        total += loss.detach()
    return total.item(), gradient.float().flatten()
