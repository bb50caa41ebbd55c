"""The seam to bitsandbytes and torchao: base models whose weights are held in eight or four bits."""

import importlib
import logging
import warnings
from typing import Any

import torch
from torch import nn

from peft_studio.config import Quantization, TrainingConfig
from peft_studio.errors import InvalidConfig
from peft_studio.trainer.rounded_linear import keep_only_rounded

_SIDE = 64  # of a layer that a machine is tried out with

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # on a CPU it warns at every product of matrices


def loading_settings(quantization: Quantization, dtype: torch.dtype, kept: list[str] | None) -> Any:
    """
    Say in transformers' words how weights are to be rounded while they are loaded.

    ``kept``: layers that stay as they are; by default the output head alone.
    """
    from transformers import BitsAndBytesConfig, TorchAoConfig

    match quantization:
        case Quantization.INT8:
            return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
        case Quantization.INT4:
            return BitsAndBytesConfig(
                load_in_4bit=True,
                llm_int8_skip_modules=kept,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=dtype,
            )
        case _:
            return TorchAoConfig(_weights_only(quantization), modules_to_not_convert=kept)


def keep_trainable(model: nn.Module) -> None:
    """
    Have rounded layers train as they are: in their form, and with nothing but rounded weights in memory.

    On some processors bitsandbytes lays four-bit weights out anew when they are asked without gradients, as held-out
    rows do, for a product that no gradient comes back through.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # pyright: ignore[reportArgumentType]
    keep_only_rounded(model)


def require_quantization(config: TrainingConfig, on: torch.device) -> None:
    """Refuse what the libraries cannot do here, which two steps of a small layer show before a large model."""
    quantization = config.effective_quantization
    if quantization is Quantization.NONE:
        return
    try:
        _train_a_little(quantization, config.use_dora or bool(config.method.fixed.get("use_dora")), on)
    except (ImportError, RuntimeError, NotImplementedError, AttributeError, ValueError, TypeError, OSError) as error:
        raise InvalidConfig(
            f"This machine cannot train a {config.algorithm} adapter on a base model in {quantization} "
            f"({str(error).splitlines()[0]}).",
            field="quantization",
            issue="Choose another quantization, or a machine with an NVIDIA GPU.",
        ) from error


def small_layer(quantization: Quantization, dtype: torch.dtype, on: torch.device) -> nn.Linear:
    """Make a frozen layer whose weights are held like this, to try out whether this machine can."""
    if quantization in (Quantization.INT8, Quantization.INT4):
        bitsandbytes: Any = importlib.import_module("bitsandbytes")
        if quantization is Quantization.INT8:
            return bitsandbytes.nn.Linear8bitLt(_SIDE, _SIDE, bias=False, has_fp16_weights=False).to(on)
        return bitsandbytes.nn.Linear4bit(_SIDE, _SIDE, bias=False, compute_dtype=dtype, quant_type="nf4").to(on)
    torchao: Any = importlib.import_module("torchao.quantization")
    layer = nn.Linear(_SIDE, _SIDE, bias=False, dtype=dtype, device=on)
    torchao.quantize_(layer, _weights_only(quantization))
    keep_only_rounded(layer)
    return layer


def _weights_only(quantization: Quantization) -> Any:
    """Say in torchao's words how weights are rounded; its inductor settings would change how all else is computed."""
    torchao: Any = importlib.import_module("torchao.quantization")
    kind = torchao.Float8WeightOnlyConfig if quantization is Quantization.FP8 else torchao.Int8WeightOnlyConfig
    return kind(set_inductor_config=False)


def _train_a_little(quantization: Quantization, dora: bool, on: torch.device) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    dtype = torch.bfloat16 if on.type == "cuda" else torch.float32
    model: Any = nn.Sequential(small_layer(quantization, dtype, on))
    model.is_loaded_in_4bit = quantization is Quantization.INT4
    model.is_loaded_in_8bit = quantization is Quantization.INT8
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"peft\.")  # of merging, which is not done here
        inject_adapter_in_model(LoraConfig(r=1, target_modules=["0"], use_dora=dora), model)
    for _ in range(2):
        model(torch.ones(1, _SIDE, device=on, dtype=dtype, requires_grad=True)).float().sum().backward()
