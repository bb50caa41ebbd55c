"""The seam to PEFT: a new adapter as a configuration asks for it, and a stored one."""

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
import torch
from peft import PeftConfig, PeftModel, TaskType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING
from peft.utils.constants import TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING

from peft_studio.adapter_size import FEED_FORWARD, adalora_start
from peft_studio.algorithms import Algorithm, Targets
from peft_studio.config import Bias, TrainingConfig
from peft_studio.errors import InvalidConfig
from peft_studio.trainer.layers import divisor, target_layers
from peft_studio.trainer.loftq import start_from_rounding_errors
from peft_studio.trainer.model import Base

# SHiRA's layers make sparse tensors, and torch warns unless it is told whether to check them.
torch.sparse.check_sparse_tensor_invariants.disable()


def adapter_config(config: TrainingConfig, base: Base, model: Any, total_steps: int) -> PeftConfig:
    """
    Say in PEFT's words what a configuration asks for; ``model`` may be a skeleton.

    Raises ``InvalidConfig`` for what cannot be, in the table's words or in PEFT's own.
    """
    method = config.method
    kind: Any = getattr(peft, method.peft)
    settings = {
        **_taken(config, base, kind),
        **method.fixed,
        **_options(config, model),
        **_own(config, base, model, total_steps),
        "task_type": TaskType(config.aim.head),
    }
    if method.targets is not Targets.PROMPT:
        settings["target_modules"] = target_layers(model, config)
    try:
        with _quiet():
            return kind(**settings)
    except (ValueError, TypeError) as error:
        raise _refusal(config, error) from error


def add_adapter(model: Any, settings: PeftConfig, base: Base, config: TrainingConfig) -> PeftModel:
    """Freeze the base model and put a new adapter on it, drawn from the configuration's seed."""
    torch.manual_seed(config.seed)
    try:
        with _quiet():
            adapted: Any = get_peft_model(model, settings, revision=base.revision)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise _refusal(config, error) from error
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if config.algorithm is Algorithm.LOFTQ:
        start_from_rounding_errors(adapted, base)
    adapted.train()
    return adapted


def load_adapter(model: Any, folder: Path) -> PeftModel:
    """Put a stored adapter on a base model, the way any user of the adapter would."""
    with _quiet():
        adapted = PeftModel.from_pretrained(model, str(folder))
    adapted.eval()
    return adapted


def unused_fields(config: TrainingConfig) -> list[str]:
    """Which of rank, alpha and dropout the algorithm has no use for."""
    return [name for name in ("rank", "alpha", "dropout") if name not in config.method.takes]


def _taken(config: TrainingConfig, base: Base, kind: Any) -> dict[str, Any]:
    """The job's fields that the algorithm takes, by PEFT's names; those that are empty are left out."""
    settings: dict[str, Any] = {}
    for ours, theirs in config.method.takes.items():
        value = getattr(config, ours)
        if ours == "bias":
            value = _bias(config.bias, kind)
        elif ours == "alpha":
            value = _whole(value)
        elif ours == "alpha_pattern":
            value = {name: _whole(alpha) for name, alpha in value.items()}
        elif ours == "trainable_tokens" and value:
            value = token_ids(value, base)
        if value not in (None, {}, False):
            settings[theirs] = value
    return settings


def _options(config: TrainingConfig, model: Any) -> dict[str, Any]:
    method = config.method
    options = {name: config.option(name) for name, option in method.options.items() if not option.ours}
    if (name := method.blocks) is not None:
        targets = target_layers(model, config)
        fitting = divisor(model, targets, int(options[name]))
        if name in config.algorithm_options and fitting != options[name]:
            raise InvalidConfig(
                f"{name} {options[name]} does not divide the sizes of all layers that are adapted; {fitting} does.",
                field="algorithm_options",
                issue=f"Set {name} to {fitting}, or leave it out.",
            )
        options[name] = fitting
    return {name: value for name, value in options.items() if value is not None}


def _own(config: TrainingConfig, base: Base, model: Any, total_steps: int) -> dict[str, Any]:
    """What single algorithms have to be told that no field of a job says."""
    match config.algorithm:
        case Algorithm.IA3:
            known = TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(base.config.model_type, FEED_FORWARD)
            inner = [name for name in target_layers(model, config) if name.rsplit(".", 1)[-1] in known]
            return {"feedforward_modules": inner}
        case Algorithm.ADALORA:
            return _budget(config, total_steps)
        case Algorithm.P_TUNING | Algorithm.PREFIX_TUNING if not config.option("encoder_hidden_size"):
            return {"encoder_hidden_size": base.config.get_text_config().hidden_size}
        case _:
            return {}


def _budget(config: TrainingConfig, total_steps: int) -> dict[str, Any]:
    """AdaLoRA starts with more ranks than it ends with: a tenth of the steps with all, a fifth with the last choice."""
    rank = adalora_start(config)
    first, last = (
        total_steps // share if (given := config.option(name)) is None else int(given)
        for name, share in (("tinit", 10), ("tfinal", 5))
    )
    if rank <= config.rank:
        raise InvalidConfig(
            f"init_r {rank} leaves adalora no rank to take away on the way to {config.rank}.",
            field="algorithm_options",
            issue="Set init_r above rank.",
        )
    if total_steps < first + last + 2:
        raise InvalidConfig(
            f"{total_steps} steps are too few for adalora: it needs two between tinit ({first}) and tfinal ({last}).",
            field="num_epochs",
            issue="Train longer, or lower tinit and tfinal.",
        )
    return {"total_step": total_steps, "tinit": first, "tfinal": last, "init_r": rank}


def token_ids(tokens: list[str], base: Base) -> list[int]:
    """Find tokens in the vocabulary, each written as such or as a text that comes to one token."""
    vocabulary = base.tokenizer.get_vocab()
    found: list[int] = []
    for token in tokens:
        ids = (
            [vocabulary[token]] if token in vocabulary else base.tokenizer(token, add_special_tokens=False)["input_ids"]
        )
        if len(ids) != 1:
            raise InvalidConfig(
                f"{token!r} is {len(ids)} tokens to the base model, not one.",
                field="trainable_tokens",
                issue="Name single tokens of its vocabulary.",
            )
        found.append(ids[0])
    return sorted(set(found))


def _bias(bias: Bias, kind: Any) -> str:
    if bias is not Bias.ADAPTED:
        return str(bias)
    return f"{PEFT_TYPE_TO_PREFIX_MAPPING[kind().peft_type]}only"


def _refusal(config: TrainingConfig, error: Exception) -> InvalidConfig:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    field = "target_modules" if "arget module" in line else "algorithm"
    return InvalidConfig(
        f"The base model cannot be adapted with {config.algorithm} in this way: {line}",
        field=field,
        issue="See the message; lora goes on every layer.",
    )


@contextmanager
def _quiet() -> Generator[None]:
    # What PEFT says about its own names, layers it handles by itself, and merging, which is not done here.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"peft\.")
        warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"peft\.")
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def _whole(number: float) -> float:
    # Written as 16 rather than 16.0, for readers of adapter_config.json that insist on an integer.
    return int(number) if number == int(number) else number
