"""
Kernels that others keep well, on NVIDIA GPUs: FlashAttention for packed rows, Liger's for norms, RoPE and MLPs. Where
Liger's are not used, MLPs keep less by a few lines of our own, and on a processor norms do and take fewer passes.

They are chosen by what is installed and by what the job is; where one cannot be used stock code is, and the job's log
says why. ``fast_kernels`` in a job turns them off. The loss is not among them: that in chunks computes no logits of
tokens without loss, as Liger's does, and works for every objective and in every architecture.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers.integrations.liger import apply_liger_kernel
from transformers.utils.import_utils import is_flash_attn_2_available

from peft_studio.algorithms import Targets
from peft_studio.config import Objective, TrainingConfig
from peft_studio.packages import installed
from peft_studio.trainer.gated_mlp import keep_less
from peft_studio.trainer.products import are_fast
from peft_studio.trainer.remade_norms import remake_norms
from peft_studio.trainer.rms_norm import fuse_norms

FLASH = "flash_attention_2"
AMPERE, VOLTA = (8, 0), (7, 0)  # the oldest GPUs that FlashAttention and Triton compute on
HALVES = (torch.bfloat16, torch.float16)
# What of Liger's is left out: the loss is the trainer's own.
_WITHOUT_LOSS = {"fused_linear_cross_entropy": False, "cross_entropy": False}


@dataclass(frozen=True)
class Hardware:
    """A GPU, as far as kernels depend on it: how new it is, and which packages are installed beside it."""

    capability: tuple[int, int]
    has_flash: bool = False
    has_liger: bool = False


@dataclass(frozen=True)
class Choice:
    """Which kernels a job trains with, and why not the others."""

    flash: bool
    liger: bool
    reasons: tuple[str, ...]


NEITHER = Choice(flash=False, liger=False, reasons=())


def hardware() -> Hardware | None:
    """Look at the GPU that is trained on; None where there is none, or where it is no NVIDIA GPU."""
    if not torch.cuda.is_available() or torch.version.hip:
        return None
    # With the package ``kernels`` transformers fetches FlashAttention from the Hub.
    has_flash = is_flash_attn_2_available(kernels_fallback_ok=True)
    return Hardware(torch.cuda.get_device_capability(), has_flash, installed("liger-kernel") is not None)


def choose(config: TrainingConfig, dtype: torch.dtype, on: Hardware) -> Choice:
    """Choose by a description of the machine and the job alone."""
    flash, liger = _why_no_flash(config, dtype, on), _why_no_liger(config, on)
    reasons = [f"{what}: {why}." for what, why in (("FlashAttention", flash), ("Liger's kernels", liger)) if why]
    return Choice(flash is None, liger is None, tuple(f"Not used: {reason}" for reason in reasons))


def use_kernels(model: Any, config: TrainingConfig, log: Callable[[str], None]) -> None:
    """Put the kernels that a job can use into its base model, which has no adapter yet, and say which and why not."""
    found = hardware()
    choice = choose(config, model.dtype, found) if found else NEITHER
    if config.fast_kernels and not choice.liger:
        keep_less(model)
        if model.device.type == "cpu":
            fuse_norms(model)
            remake_norms(model)
    if are_fast() and model.dtype is torch.float32:
        log("In use: oneDNN's products in 32 bits.")
    for reason in choice.reasons:
        log(reason)
    if choice.flash:
        _try("FlashAttention", lambda: model.set_attn_implementation(FLASH), log)
    if choice.liger:
        _try("Liger's kernels", lambda: apply_liger_kernel(model, _WITHOUT_LOSS), log)


def is_flash(implementation: str) -> bool:
    """Whether an attention by transformers' name for it keeps rows apart by their positions."""
    return implementation == FLASH or implementation.startswith("kernels-community/flash-attn2")


def _why_no_flash(config: TrainingConfig, dtype: torch.dtype, on: Hardware) -> str | None:
    if not config.fast_kernels:
        return "the job turns it off"
    if not on.has_flash:
        return "flash-attn is not installed"
    if on.capability < AMPERE:
        return f"it computes on GPUs of capability 8.0 and newer, and this one's is {'.'.join(map(str, on.capability))}"
    if dtype not in HALVES:
        return "it computes in 16 bits, and the job asks for 32"
    if config.method.targets is Targets.PROMPT:
        return f"{config.algorithm} puts tokens before the text"
    if config.objective is Objective.GRPO or not config.aim.writes:
        return f"{config.objective} lays rows out in another way"
    return None


def _why_no_liger(config: TrainingConfig, on: Hardware) -> str | None:
    if not config.fast_kernels:
        return "the job turns them off"
    if not on.has_liger:
        return "liger-kernel is not installed"
    if on.capability < VOLTA:
        return "Triton has none for this GPU"
    if config.method.peft != "LoraConfig":
        # They overwrite what an MLP has computed, once that is used up; what other adapters keep of it is not known.
        return f"they are known to go with LoRA, not with {config.algorithm}"
    return None


def _try(what: str, use: Callable[[], None], log: Callable[[str], None]) -> None:
    try:
        use()
    except Exception as error:  # whatever a foreign library has against this model is the answer
        log(f"Not used: {what}: {(str(error).strip() or type(error).__name__).splitlines()[0][:200]}.")
    else:
        log(f"In use: {what}, where the architecture has a place for it.")
