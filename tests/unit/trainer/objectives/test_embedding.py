"""Embeddings: the loss and its gradients are those of the formula, computed in one go with stock parts."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForFeatureExtraction
from torch.nn.functional import cross_entropy, normalize
from transformers import AutoTokenizer

from peft_studio.run_dir import RunDir
from tests.tiny import make_run, pairs, tiny_encoder, write_rows
from tests.unit.trainer.objectives.jobs import evaluated, reported, trained

ROWS = 8
STEP: dict[str, Any] = {"dropout": 0.1, "num_epochs": 1, "learning_rate": 1e-6, "warmup_steps": 1_000_000}


def one_step(folder: Path, model: Path, **config: Any) -> RunDir:
    """A step over all rows, at the rate 0: what is stored is what the loss was measured with."""
    rows = write_rows(folder / "rows.jsonl", pairs(ROWS))
    return trained(make_run(folder / "run", model, rows, objective="embedding", **STEP | config))


def by_formula(run: RunDir, model: Path, scale: float, pooling: str) -> tuple[float, float]:
    """Return the loss of all rows and the length of its gradient, with everything in memory at once."""
    stock: Any = AutoPeftModelForFeatureExtraction.from_pretrained(run.adapter, is_trainable=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)

    def embed(text: str) -> torch.Tensor:
        tokens = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        states = stock(**tokens).last_hidden_state[0]
        pooled = {"mean": states.mean(0), "last": states[-1], "first": states[0]}[pooling]
        return normalize(pooled, dim=0)

    raw = pairs(ROWS)
    anchors = torch.stack([embed(row["anchor"]) for row in raw])
    others = [embed(row["positive"]) for row in raw] + [embed(row["negative"]) for row in raw if row["negative"]]
    loss = cross_entropy(scale * anchors @ torch.stack(others).T, torch.arange(len(raw)))
    loss.backward()
    slopes = [parameter.grad for parameter in stock.parameters() if parameter.grad is not None]
    return loss.item(), torch.linalg.vector_norm(torch.cat([slope.flatten() for slope in slopes])).item()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # stock PEFT's
@pytest.mark.parametrize(("batch_size", "accumulation"), [(8, 1), (3, 3)])
@pytest.mark.parametrize("pooling", ["mean", "last", "first"])
def test_loss_and_gradient_are_those_of_the_formula_in_batches_of_any_size(
    pooling: str, batch_size: int, accumulation: int, tmp_path: Path, model: Path
) -> None:
    batches = {"batch_size": batch_size, "gradient_accumulation_steps": accumulation}
    run = one_step(tmp_path, model, objective_options={"scale": 5.0, "pooling": pooling}, **batches)
    [told] = reported(run)
    loss, slope = by_formula(run, model, 5.0, pooling)
    assert told["loss"] == pytest.approx(loss, rel=1e-4)
    assert told["grad_norm"] == pytest.approx(slope, rel=1e-3)
    assert json.loads((run.adapter / "pooling.json").read_text()) == {"pooling": pooling, "normalize": True}


def test_encoders_learn_to_find_what_belongs_together(tmp_path: Path) -> None:
    model = tiny_encoder(tmp_path / "model")
    rows = write_rows(tmp_path / "rows.jsonl", pairs(150))
    job: dict[str, Any] = {
        "validation_split": 0.2,
        "num_epochs": 4,
        "batch_size": 10,
        "rank": 16,
        "learning_rate": 1e-2,
    }
    evaluation = evaluated(trained(make_run(tmp_path / "run", model, rows, objective="embedding", **job)))
    assert evaluation.base and evaluation.adapter
    assert evaluation.adapter.loss < evaluation.base.loss
    assert evaluation.adapter.accuracy is not None and evaluation.base.accuracy is not None
    assert evaluation.adapter.accuracy > evaluation.base.accuracy
