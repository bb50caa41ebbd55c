"""GPU memory: what is estimated, against what autograd really keeps of the trainer's forward pass."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_studio.algorithms import Algorithm, Quantization
from peft_studio.base_models import inspect_model
from peft_studio.config import ModelSource
from peft_studio.memory import DENSE_BYTES, KEPT_BYTES, LEAST_TOKENS, USUAL_TOKENS, vram_gb
from peft_studio.trainer.data import Batch
from peft_studio.trainer.loss import summed_loss
from tests.model_folders import write_model
from tests.rented_jobs import LLAMA


def kept(model: torch.nn.Module, tokens: int) -> int:
    """Bytes that autograd keeps, besides the parameters, of one row of which the last token carries loss."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    stores: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if (store := tensor.untyped_storage()).data_ptr() not in own:
            stores[store.data_ptr()] = store
        return tensor

    learn = torch.zeros(1, tokens, dtype=torch.bool)
    learn[:, -1] = True
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = summed_loss(model, Batch(ids=torch.ones(1, tokens, dtype=torch.long), learn=learn))
    assert loss.requires_grad
    return sum(store.nbytes() for store in stores.values())


@pytest.mark.parametrize("algorithm", [Algorithm.LORA, Algorithm.DORA])
def test_what_is_kept_for_the_backward_pass_is_as_estimated(algorithm: Algorithm) -> None:
    config = LlamaConfig(
        vocab_size=100, hidden_size=256, intermediate_size=688, num_hidden_layers=3, num_attention_heads=8
    )
    base = LlamaForCausalLM(config).to(torch.bfloat16)
    linear = [layer.weight for name, layer in base.named_modules() if isinstance(layer, torch.nn.Linear)][:-1]
    adapter = LoraConfig(r=8, lora_dropout=0.05, target_modules="all-linear", use_dora=algorithm is Algorithm.DORA)
    model = get_peft_model(base, adapter).train()
    few, many = kept(model, 64), kept(model, 192)
    a_token = (many - few) / 128
    assert a_token == pytest.approx(KEPT_BYTES[algorithm] * sum(sum(weight.shape) for weight in linear), rel=0.1)
    weights = sum(weight.numel() for weight in linear)
    assert few - 64 * a_token == pytest.approx(DENSE_BYTES.get(algorithm, 0) * weights, rel=0.15, abs=0.2 * weights)


def test_quantization_takes_less_and_more_tokens_take_more() -> None:
    sizes = [vram_gb(LLAMA, Algorithm.LORA, kind, LEAST_TOKENS) for kind in Quantization]
    none, int8, int4 = sizes
    assert none and int8 and int4
    assert none > int8 > int4 > LLAMA.parameters / 2e9
    assert none > 2 * LLAMA.parameters / 1e9
    usual, dora = (vram_gb(LLAMA, way, Quantization.NONE, USUAL_TOKENS) for way in (Algorithm.LORA, Algorithm.DORA))
    assert usual and dora and dora > usual > none


def test_a_model_of_unknown_shape_has_no_estimate() -> None:
    unknown = LLAMA.model_copy(update={"linear_sides": None})
    assert vram_gb(unknown, Algorithm.LORA, Quantization.NONE, 512) is None


def test_the_shapes_of_a_folder_are_counted(tmp_path: Path) -> None:
    facts = inspect_model(str(write_model(tmp_path, vocab_size=50)), ModelSource.LOCAL)
    assert facts.linear_parameters == 2 * (64 + 32 + 128)
    assert facts.linear_sides == 2 * (8 + 8 + 4 + 8 + 8 + 16)
    assert facts.vocabulary == 50
