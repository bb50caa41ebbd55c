"""
The model card that goes with an adapter into a registry.

Its front matter is what the Hub indexes; see https://huggingface.co/docs/hub/model-cards.
"""

from typing import Any

import yaml

from peft_studio.adapters import Adapter
from peft_studio.base_models import is_hub_id
from peft_studio.config import ModelSource
from peft_studio.lineage import Lineage

_LOAD = """\
```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained({base!r}{revision})
model = PeftModel.from_pretrained(model, "PATH_OR_REPOSITORY")
```"""
_SHOWN = ("learning_rate", "batch_size", "gradient_accumulation_steps", "num_epochs", "max_steps", "max_length", "seed")


def model_card(adapter: Adapter, lineage: Lineage | None) -> str:
    """Write the card; what is not known is not in it, and no path of the studio's machine either."""
    base = adapter.base_model
    is_public = is_hub_id(base) and (lineage is None or lineage.base_model.source is ModelSource.HUGGINGFACE)
    name = base if is_public else base.rstrip("/").rpartition("/")[2]
    front = yaml.safe_dump(_front(adapter, lineage, base if is_public else None), sort_keys=False)
    revision = lineage.base_model.revision if lineage and is_public else None
    parts = [
        f"---\n{front}---",
        f"# {adapter.name}",
        f"A PEFT adapter ({adapter.algorithm}) for {name}, made with PEFT Studio.",
        _table(_facts(adapter, lineage, name)),
    ]
    if lineage and (measured := _measured(lineage)):
        parts += ["## Measured", _table(measured)]
    parts += ["## How to load it", _LOAD.format(base=name, revision=f", revision={revision!r}" if revision else "")]
    if lineage:
        parts.append("`lineage.json` says all that this adapter came from, and is enough to train it again.")
    return "\n\n".join(parts) + "\n"


def _front(adapter: Adapter, lineage: Lineage | None, base: str | None) -> dict[str, Any]:
    front: dict[str, Any] = {"base_model": base} if base else {}
    if lineage and lineage.base_model.license:
        front["license"] = lineage.base_model.license
    tags = [str(adapter.algorithm), str(adapter.objective), "peft-studio"]
    return front | {"library_name": "peft", "tags": [*([f"base_model:adapter:{base}"] if base else []), *tags]}


def _facts(adapter: Adapter, lineage: Lineage | None, base: str) -> dict[str, Any]:
    shown = adapter.metadata
    facts: dict[str, Any] = {"Base model": base}
    if lineage:
        facts["Base model's revision"] = lineage.base_model.revision
        facts["Base model's licence"] = lineage.base_model.license
        facts["Data set's SHA-256"] = lineage.dataset.sha256
        facts["Rows"] = lineage.dataset.rows
    facts["Objective"] = adapter.objective
    facts["Rank"], facts["Alpha"] = shown.rank, shown.alpha
    facts["Adapted layers"] = ", ".join(shown.target_modules)
    if lineage:
        facts["Quantization"] = lineage.config.effective_quantization
        facts |= {name.replace("_", " "): getattr(lineage.config, name) for name in _SHOWN}
        facts["Trained on"] = ", ".join(lineage.machine.gpus) or "CPU"
        facts |= lineage.versions
    return facts


def _measured(lineage: Lineage) -> dict[str, Any]:
    measured: dict[str, Any] = {"last training loss": lineage.training.final_loss}
    for whose, held_out in (
        ("base model", lineage.evaluation and lineage.evaluation.base),
        ("adapter", lineage.evaluation and lineage.evaluation.adapter),
    ):
        if held_out:
            figures = {"loss": held_out.loss, "perplexity": held_out.perplexity, "accuracy": held_out.accuracy}
            measured |= {f"held-out {name}, {whose}": figure for name, figure in (figures | held_out.metrics).items()}
    return {name: f"{figure:.4f}" for name, figure in measured.items() if figure is not None}


def _table(rows: dict[str, Any]) -> str:
    lines = [f"| {name} | {_cell(value)} |" for name, value in rows.items() if value not in (None, "")]
    return "\n".join(["| | |", "|---|---|", *lines])


def _cell(value: object) -> str:
    return str(value).replace("\n", " ").replace("|", "\\|")
