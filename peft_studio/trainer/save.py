"""What a finished run leaves: the adapter, moved into place whole, and the summary."""

import json
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch

from peft_studio.jobs import TrainingSummary
from peft_studio.packages import versions
from peft_studio.run_dir import RunDir, make_durable
from peft_studio.trainer.checkpoint import WEIGHTS, Progress
from peft_studio.trainer.data import Encoded
from peft_studio.trainer.plain_lora import Weights, plain_config, plain_weights

REPORTED = ("torch", "transformers", "peft", "bitsandbytes", "torchao", "tokenizers")


def save_adapter(
    run: RunDir, model: Any, tokenizer: Any, start: Weights | None = None, notes: Mapping[str, Any] | None = None
) -> None:
    """
    Write the adapter with tokenizer and chat template beside its place, make it durable, and move it there.

    Beside it are ``notes``, which PEFT does not store: files by name, and what is in them.

    With the factors that it started from, the adapter is stored as one for the base model as it was before.
    """
    temporary = run.path / ".adapter"
    shutil.rmtree(temporary, ignore_errors=True)
    # Left to itself PEFT asks the hub about the base model's vocabulary; nothing here ever changes that.
    model.save_pretrained(str(temporary), save_embedding_layers=False)
    if start is not None:
        _store_plainly(temporary, model, start)
    tokenizer.save_pretrained(str(temporary))
    for name, content in (notes or {}).items():
        (temporary / name).write_text(json.dumps(content, indent=2, ensure_ascii=False))
    for path in temporary.rglob("*"):
        if path.is_file():
            make_durable(path)
    make_durable(temporary)
    shutil.rmtree(run.adapter, ignore_errors=True)  # of an attempt that died before its summary
    temporary.rename(run.adapter)
    make_durable(run.path)


def _store_plainly(folder: Path, model: Any, start: Weights) -> None:
    config = plain_config(model.peft_config["default"])
    config.inference_mode = True
    config.save_pretrained(str(folder))
    weights = safetensors.torch.load_file(folder / WEIGHTS)
    safetensors.torch.save_file(plain_weights(weights, start), folder / WEIGHTS, {"format": "pt"})


def summarize(
    progress: Progress, model: Any, train: Encoded[Any], held_out: Encoded[Any], epochs: float
) -> TrainingSummary:
    """Say what training did."""
    return TrainingSummary(
        total_steps=progress.step,
        epochs=epochs,
        final_loss=progress.loss,
        best_loss=progress.loss if progress.best_loss is None else progress.best_loss,
        eval_loss=progress.eval_loss,
        eval_metrics=progress.eval_metrics,
        train_rows=len(train.rows),
        held_out_rows=len(held_out.rows),
        tokens=progress.tokens,
        supervised_tokens=progress.supervised_tokens,
        truncated_rows=train.truncated + held_out.truncated,
        dropped_rows=train.dropped + held_out.dropped,
        split_rows=train.split + held_out.split,
        tokens_per_second=progress.tokens / progress.seconds if progress.seconds else 0.0,
        seconds=progress.seconds,
        peak_memory_mb=progress.peak_memory_mb,
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        resumed_at=progress.resumed_at,
        versions={"python": platform.python_version(), **versions(REPORTED)},
    )
