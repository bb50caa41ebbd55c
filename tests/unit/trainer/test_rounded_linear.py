"""Layers that torchao rounds: the same numbers as from widened weights, no wide copies kept, jobs taken up again."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from peft_studio.algorithms import Quantization
from peft_studio.config import TrainingConfig
from peft_studio.events import Metrics
from peft_studio.trainer.model import load_base, read_base
from peft_studio.trainer.outcome import DONE, STOPPED
from peft_studio.trainer.program import run as train
from peft_studio.trainer.quantization import small_layer
from peft_studio.trainer.rounded_linear import RoundedLinear
from peft_studio.trainer.stop import StopSignal
from tests.tiny import make_run
from tests.unit.trainer.stops import StopAtLook

TORCHAO = [Quantization.FP8, Quantization.INT8_WEIGHT_ONLY]


@pytest.mark.parametrize("quantization", TORCHAO)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_computes_as_its_widened_weights_do(quantization: Quantization, dtype: torch.dtype) -> None:
    layer: Any = small_layer(quantization, dtype, torch.device("cpu"))
    wide = layer.weight.dequantize().detach()
    torch.manual_seed(0)
    ours, plain = (torch.randn(8, 64, dtype=dtype).requires_grad_() for _ in range(2))
    with torch.no_grad():
        plain.copy_(ours)
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        found = layer(ours)
    expected = nn.functional.linear(plain, wide)
    assert torch.equal(found, expected)
    assert [tensor for tensor in kept if tensor.numel() >= wide.numel()] == []
    found.sin().sum().backward()
    expected.sin().sum().backward()
    assert torch.equal(ours.grad, plain.grad)  # pyright: ignore[reportArgumentType]


def test_a_layer_computes_in_bfloat16_where_all_others_do() -> None:
    layer = small_layer(Quantization.INT8_WEIGHT_ONLY, torch.bfloat16, torch.device("cpu"))
    rows = torch.randn(2, 64, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(rows)
    assert found.dtype is torch.bfloat16
    found.float().sum().backward()
    assert rows.grad is not None and rows.grad.dtype is torch.float32


@pytest.mark.parametrize("quantization", TORCHAO)
def test_all_layers_of_a_base_model_are_rounded_but_its_head(
    quantization: Quantization, tmp_path: Path, model: Path, rows: Path
) -> None:
    config = make_run(tmp_path / "run", model, rows, quantization=quantization).read_config()
    loaded = load_base(read_base(config, None), config)
    kinds = {name: type(module) for name, module in loaded.named_modules() if isinstance(module, nn.Linear)}
    assert kinds.pop("lm_head") is nn.Linear
    assert set(kinds.values()) == {RoundedLinear}


@pytest.mark.parametrize("quantization", TORCHAO)
def test_a_job_that_was_stopped_goes_on_to_the_bit(
    quantization: Quantization, tmp_path: Path, model: Path, rows: Path
) -> None:
    job = {"quantization": quantization, "max_steps": 4, "checkpoint_steps": 100}
    whole, stopped = (make_run(tmp_path / name, model, rows, **job) for name in ("whole", "stopped"))
    assert train(whole, StopSignal()) == DONE, whole.read_failure()
    assert train(stopped, StopAtLook(6)) == STOPPED
    assert train(stopped, StopSignal()) == DONE, stopped.read_failure()
    summary = stopped.read_summary()
    assert summary is not None and summary.resumed_at
    curves = [[e.metrics["loss"] for _, e in run.events() if isinstance(e, Metrics)] for run in (whole, stopped)]
    assert curves[0] == curves[1]
    once, again = (load_file(run.adapter / "adapter_model.safetensors") for run in (whole, stopped))
    assert once.keys() == again.keys()
    assert all(torch.equal(once[name], again[name]) for name in once)


def test_what_torchao_rounds_takes_lora_alone_and_is_not_divided() -> None:
    job: dict[str, Any] = {"base_model": "m", "dataset_path": "d", "quantization": "fp8"}
    with pytest.raises(ValueError, match="oft does not work on a base model in fp8: set quantization to none or int8"):
        TrainingConfig(**job, algorithm="oft")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="weights in fp8 cannot be divided"):
        TrainingConfig(**job, shard_base=True)
