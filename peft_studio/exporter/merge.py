"""Merging: an adapter put into its base model's own weights, which must not have been rounded to four or eight bits."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from peft_studio.adapter_config import CONFIG
from peft_studio.adapter_files import WEIGHTS
from peft_studio.adapter_folder import files_of
from peft_studio.errors import InvalidConfig
from peft_studio.exporter.blocks import narrowed
from peft_studio.exporter.plain_merge import merge_plainly
from peft_studio.trainer.adapter import load_adapter

Say = Callable[[str, float], None]
_WIDTH = {torch.float32: 4, torch.bfloat16: 2, torch.float16: 2}


@dataclass(frozen=True)
class Source:
    """What is exported: an adapter's folder and the base model it was trained on, a folder or a hub's model."""

    adapter: Path
    base: str
    revision: str | None = None


@dataclass(frozen=True)
class Merged:
    """A model with the adapter in its weights, and its tokenizer."""

    model: Any
    tokenizer: Any


def load_original(source: Source, dtype: torch.dtype | None = None) -> Any:
    """
    Load the base model as it is stored, or in wider numbers; raises ``InvalidConfig`` where it is stored quantized.

    Merged into four or eight bits, most of what an adapter has learnt is rounded away.
    """
    transformers_logging.disable_progress_bar()
    try:
        settings: Any = AutoConfig.from_pretrained(source.base, revision=source.revision)
        if getattr(settings, "quantization_config", None) is not None:
            raise InvalidConfig(
                "The base model is stored quantized; an adapter is merged into unquantized weights only.",
                field="adapter_id",
                issue="Train on the unquantized model, or export the adapter as lora",
            )
        stored: Any = getattr(settings, "dtype", None)
        wide = dtype if dtype is not None and _WIDTH[dtype] > _WIDTH.get(stored, 2) else "auto"
        return AutoModelForCausalLM.from_pretrained(source.base, revision=source.revision, dtype=wide).eval()
    except OSError as error:
        raise InvalidConfig(
            f"The base model {source.base!r} cannot be read: {str(error).splitlines()[0]}",
            field="adapter_id",
            issue="Its base model must still be where it was",
        ) from error


def load_tokenizer(source: Source) -> Any:
    """Load the tokenizer that the adapter was trained with: its own copy, else the base model's."""
    if (source.adapter / "tokenizer.json").is_file():
        return AutoTokenizer.from_pretrained(str(source.adapter))
    return AutoTokenizer.from_pretrained(source.base, revision=source.revision)


def merge(source: Source, say: Say, dtype: torch.dtype | None = None) -> Merged:
    """
    Load base model and adapter, and add them up: LoRA and DoRA here, what PEFT makes of any other kind.

    PEFT's sums are taken in the wider of the stored number format and ``dtype``. Raises ``InvalidConfig`` for an
    adapter that PEFT cannot merge, or of which it makes numbers that are none.
    """
    say("loading", 0.05)
    model = load_original(source, dtype)
    say("merging", 0.25)
    try:
        if not merge_plainly(model, source.adapter):
            adapted: Any = load_adapter(model, source.adapter)
            with torch.no_grad():
                model = adapted.merge_and_unload(safe_merge=True)
    except (ValueError, NotImplementedError, AttributeError) as error:
        raise InvalidConfig(
            f"The adapter cannot be merged: {error}", field="adapter_id", issue="Its kind has no merged form"
        ) from error
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is not None and head.weight.data_ptr() != embedding.weight.data_ptr():
        model.config.tie_word_embeddings = False  # an adapter on one of the two has parted them
    return Merged(model, load_tokenizer(source))


def save_merged(merged: Merged, folder: Path, dtype: torch.dtype | None) -> torch.dtype:
    """Write a folder that stock transformers loads; by default 16 bits. Return the number format of the weights."""
    stored = next(merged.model.parameters()).dtype
    dtype = dtype or (torch.float16 if stored is torch.float16 else torch.bfloat16)
    for parameter in merged.model.parameters():  # not the buffers: what they hold is computed, and never stored
        parameter.data = narrowed(parameter.data, dtype)
    merged.model.config.dtype = dtype
    merged.model.save_pretrained(str(folder))
    merged.tokenizer.save_pretrained(str(folder))
    return dtype


def copy_adapter(source: Source, folder: Path) -> None:
    """Copy an adapter's own files, its weights and configuration apart, and nothing that is the studio's alone."""
    for name, path in files_of(source.adapter).items():
        if name not in (WEIGHTS, CONFIG):
            shutil.copy2(path, folder / name)
