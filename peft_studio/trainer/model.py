"""The seam to transformers: tokenizer and base model as a configuration asks for them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import logging as transformers_logging

from peft_studio.config import Precision, Quantization, TrainingConfig
from peft_studio.errors import InvalidConfig
from peft_studio.plan import Plan
from peft_studio.trainer.heads import CLASSES, NEW
from peft_studio.trainer.late import with_all_shapes
from peft_studio.trainer.quantization import keep_trainable, loading_settings

MISSING = {"RepositoryNotFoundError", "RevisionNotFoundError", "EntryNotFoundError", "GatedRepoError"}


@dataclass(frozen=True)
class Base:
    """Where a base model is read from, and what its small files say."""

    source: str
    revision: str | None
    config: Any
    tokenizer: Any

    @property
    def width(self) -> int:
        """How many numbers a hidden state has; 0 where the architecture does not say."""
        return getattr(self.config.get_text_config(), "hidden_size", 0)

    @property
    def end(self) -> int:
        """The token that ends a text."""
        for holder in (self.tokenizer, self.config):
            token = getattr(holder, "eos_token_id", None)
            if token is not None:
                return token[0] if isinstance(token, list) else token
        raise InvalidConfig(
            "The base model has no end-of-text token, so no answer would ever end.",
            field="base_model",
            issue="Set eos_token in the model's tokenizer_config.json.",
        )

    def longest(self, wanted: int, before: int = 0) -> int:
        """The longest row, in tokens, that was asked for and that the model has positions for behind some others."""
        room = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        return min(wanted, max(1, room - before)) if room else wanted


def device() -> torch.device:
    """The device to train on."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def dtype_of(precision: Precision, on: torch.device) -> torch.dtype:
    """Return the base model's number format: by itself bfloat16 on a GPU, float32 elsewhere."""
    if precision is Precision.AUTO:
        return torch.bfloat16 if on.type == "cuda" else torch.float32
    return torch.float32 if precision is Precision.FLOAT32 else torch.bfloat16


def read_base(config: TrainingConfig, plan: Plan | None) -> Base:
    """Read everything of the base model but its weights."""
    transformers_logging.disable_progress_bar()
    local = plan.model.path if plan and plan.model.path else None
    source = local or config.base_model
    revision = None if Path(source).is_dir() else (plan.model.revision if plan else None) or config.model_revision
    if os.sep in source and source.startswith((os.sep, ".", "~")) and not Path(source).is_dir():
        raise InvalidConfig(f"There is no folder {source}.", field="base_model", issue="Give a model's folder or id.")
    try:
        settings = AutoConfig.from_pretrained(source, revision=revision)
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
    except (OSError, ValueError) as error:
        raise _refusal(config, error) from error
    if not tokenizer.is_fast:
        raise InvalidConfig(
            "The base model's tokenizer cannot tell which characters a token stands for.",
            field="base_model",
            issue="Use a version of the model that has a tokenizer.json.",
        )
    return Base(source, revision, settings, tokenizer)


def load_base(base: Base, config: TrainingConfig, place: Literal["device", "host", "all"] = "device") -> Any:
    """
    Load the base model's weights in the number format that is asked for, quantized on the way.

    They come to the device that is trained on, stay on the host, or are spread over all devices.
    """
    on = device()
    dtype = dtype_of(config.precision, on)
    quantization = config.effective_quantization
    where = {"device": {"": str(on)}, "host": {"": "cpu"}, "all": "auto"}[place]
    extra: dict[str, Any] = {} if on.type == "cpu" else {"device_map": where}
    if quantization is not Quantization.NONE:
        kept = None if config.aim.writes else list(NEW)  # a new head is trained
        extra["quantization_config"] = loading_settings(quantization, dtype, kept)
    if not config.aim.writes:
        extra["num_labels"] = base.config.num_labels

    def load() -> Any:
        torch.manual_seed(config.seed)  # a new head starts at random
        return CLASSES[config.aim.head].from_pretrained(base.source, revision=base.revision, dtype=dtype, **extra)

    try:
        model = with_all_shapes(load)
    except (OSError, ValueError) as error:
        raise _refusal(config, error) from error
    keep_trainable(model)
    tokens, known = len(base.tokenizer), model.get_input_embeddings().num_embeddings
    if tokens > known:
        raise InvalidConfig(
            f"The tokenizer has {tokens} tokens, the model knows {known}.",
            field="base_model",
            issue="Use the tokenizer that belongs to the model.",
        )
    return model


def _refusal(config: TrainingConfig, error: Exception) -> Exception:
    """Turn what will not change by itself into ``InvalidConfig``; a hub that does not answer may tomorrow."""
    cause: BaseException | None = error
    while cause is not None:
        if type(cause).__name__ in MISSING or isinstance(cause, ValueError):
            break
        cause = cause.__cause__
    if cause is None and not Path(config.base_model).is_dir():
        return error
    return InvalidConfig(
        f"The base model {config.base_model} cannot be loaded: {str(error).strip().splitlines()[0]}",
        field="base_model",
        issue="Check the name, the revision and whether you have access to it.",
    )
