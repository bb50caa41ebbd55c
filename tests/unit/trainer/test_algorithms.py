import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from peft_studio.events import Metrics
from peft_studio.trainer.model import load_base, read_base
from peft_studio.trainer.outcome import DONE, FAILED
from peft_studio.trainer.program import run as train
from peft_studio.trainer.stop import StopSignal
from tests.tiny import make_run

WORKING = [
    ("lora", "none"),
    ("lora", "int8"),
    ("lora", "int4"),
    ("dora", "none"),
    ("dora", "int4"),
    ("qlora", None),
    ("qlora", "int8"),
    ("lora", "fp8"),
    ("qlora", "int8_weight_only"),
    ("dora", "fp8"),
    ("dora", "int8_weight_only"),
]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # stock PEFT's
@pytest.mark.parametrize(("algorithm", "quantization"), WORKING)
def test_an_adapter_is_trained_and_stock_peft_loads_it(
    algorithm: str, quantization: str | None, tmp_path: Path, model: Path, rows: Path
) -> None:
    run = make_run(tmp_path / "run", model, rows, algorithm=algorithm, quantization=quantization, num_epochs=4)
    assert train(run, StopSignal()) == DONE, run.read_failure()
    losses = [event.metrics["loss"] for _, event in run.events() if isinstance(event, Metrics)]
    assert sum(losses[-4:]) < sum(losses[:4]) - 0.5

    settings = json.loads((run.adapter / "adapter_config.json").read_text())
    assert settings["use_dora"] == (algorithm == "dora")
    weights = load_file(run.adapter / "adapter_model.safetensors")
    assert all(weight.dtype is torch.float32 for weight in weights.values())
    assert any("magnitude" in name for name in weights) == (algorithm == "dora")
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), run.adapter)
    prompt = torch.tensor([[0, 3, 50, 60]])
    with torch.no_grad():
        after = adapted(prompt).logits
        with adapted.disable_adapter():
            assert (after - adapted(prompt).logits).abs().max() > 1e-3


@pytest.mark.parametrize(("quantization", "bytes_each"), [("int8", 1.0), ("int4", 0.5), ("fp8", 1.0)])
def test_a_quantized_base_model_takes_less_memory(
    quantization: str, bytes_each: float, tmp_path: Path, model: Path, rows: Path
) -> None:
    config = make_run(tmp_path / "run", model, rows, quantization=quantization).read_config()
    layer = load_base(read_base(config, None), config).model.layers[0].mlp.up_proj
    held = getattr(layer.weight, "qdata", layer.weight.data)  # torchao's, or bitsandbytes'
    assert held.nbytes == 64 * 32 * bytes_each


def test_bfloat16_holds_the_base_model_in_half_and_the_adapter_in_full(tmp_path: Path, model: Path, rows: Path) -> None:
    run = make_run(tmp_path / "run", model, rows, precision="bfloat16")
    assert train(run, StopSignal()) == DONE
    weights = load_file(run.adapter / "adapter_model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    config = run.read_config()
    assert load_base(read_base(config, None), config).dtype is torch.bfloat16


def test_what_this_machine_cannot_do_is_refused_before_the_model_is_loaded(
    tmp_path: Path, model: Path, rows: Path
) -> None:
    # On a CPU, DoRA on int8 layers fails inside PEFT at the second step.
    run = make_run(tmp_path / "run", model, rows, algorithm="dora", quantization="int8")
    code = train(run, StopSignal())
    if torch.cuda.is_available():
        assert code == DONE
        return
    assert code == FAILED
    failure = run.read_failure()
    assert failure is not None
    assert failure.code == "INVALID_CONFIG"
    assert failure.details.startswith("quantization: ")


@pytest.mark.parametrize("quantization", ["int8", "int4", "fp8"])
def test_a_look_at_the_held_out_rows_changes_nothing_about_training(
    quantization: str, tmp_path: Path, model: Path, rows: Path
) -> None:
    job = {"quantization": quantization, "validation_split": 0.2, "num_epochs": 1, "dropout": 0}
    often, once = (make_run(tmp_path / str(n), model, rows, eval_steps=n, **job) for n in (1, 100))
    assert (train(often, StopSignal()), train(once, StopSignal())) == (DONE, DONE)
    weights, expected = (load_file(run.adapter / "adapter_model.safetensors") for run in (often, once))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
