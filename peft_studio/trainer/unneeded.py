"""
Packages that a job has no use for are not found in its process: PEFT and Accelerate load what they find.

With bitsandbytes, torchao and boto3 installed that is a third of the time and 60 MB of the memory that a cold trainer's
imports take. A process that was forked from a warm one has them already.
"""

import sys

from pydantic import ValidationError

from peft_studio.algorithms import Quantization
from peft_studio.choices import Optimizer
from peft_studio.config import TrainingConfig
from peft_studio.objectives import Objective
from peft_studio.run_dir import RunDir

BY_BITSANDBYTES = {Quantization.INT8, Quantization.INT4}
BY_TORCHAO = {Quantization.FP8, Quantization.INT8_WEIGHT_ONLY}
# Those that bitsandbytes computes.
OPTIMIZERS = {
    Optimizer.ADAMW_8BIT,
    Optimizer.PAGED_ADAMW,
    Optimizer.PAGED_ADAMW_8BIT,
    Optimizer.LION,
    Optimizer.LION_8BIT,
}


def unneeded_by(config: TrainingConfig) -> set[str]:
    """Name them; none for a job with reward functions, which are an operator's own code and load what they like."""
    if config.objective is Objective.GRPO:
        return set()
    unneeded, held_in = {"boto3"}, config.effective_quantization
    if held_in not in BY_BITSANDBYTES and config.optimizer not in OPTIMIZERS:
        unneeded.add("bitsandbytes")
    if held_in not in BY_TORCHAO:
        unneeded.add("torchao")
    return unneeded


def leave_out_unneeded(run: RunDir) -> None:
    """Have Python not find them from here on, by the way that importlib has for it: None in their place."""
    try:
        config = run.read_config()
    except ValidationError:
        return  # the trainer says what is wrong
    for package in unneeded_by(config):
        sys.modules.setdefault(package, None)  # pyright: ignore[reportArgumentType] - the import system documents it
