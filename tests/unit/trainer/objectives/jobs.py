"""Jobs of every objective that are small enough to be trained in a test."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from peft_studio.events import Metrics
from peft_studio.jobs import Evaluation
from peft_studio.run_dir import RunDir
from peft_studio.trainer import job_evaluation
from peft_studio.trainer.outcome import DONE
from peft_studio.trainer.program import run as train
from peft_studio.trainer.stop import StopSignal
from tests.tiny import labelled, make_run, pairs, preferences, questions, tagged, verdicts, write_rows

ROWS: dict[str, list[dict[str, Any]]] = {
    "dpo": preferences(30),
    "orpo": preferences(30),
    "simpo": preferences(30),
    "kto": verdicts(30),
    "reward": preferences(30),
    "sequence_classification": labelled(30),
    "token_classification": tagged(60),
    "embedding": pairs(150),
    "grpo": questions(20),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "orpo": {"objective_options": {"beta": 2.0}},
    "embedding": {
        "num_epochs": 4,
        "gradient_accumulation_steps": 2,
        "batch_size": 5,
        "learning_rate": 1e-2,
        "rank": 16,
    },
    "token_classification": {"gradient_accumulation_steps": 1, "learning_rate": 1e-2},
    "grpo": {
        "num_epochs": 3,
        "rank": 16,
        "lr_schedule": "constant",
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-2,
        "grpo": {
            "rewards": [{"function": "length", "options": {"at_most": 2}}],
            "num_generations": 8,
            "max_completion_length": 4,
            "beta": 0.001,
            "num_iterations": 2,
        },
    },
}
CLOCK = ("tokens_per_second",)


def job(folder: Path, model: Path, objective: str, **config: Any) -> RunDir:
    folder.mkdir(exist_ok=True)
    rows = write_rows(folder / "rows.jsonl", ROWS[objective])
    settings: dict[str, Any] = {"validation_split": 0.2, "num_epochs": 2, "batch_size": 4}
    return make_run(folder / "run", model, rows, objective=objective, **settings | SETTINGS.get(objective, {}) | config)


def trained(run: RunDir) -> RunDir:
    assert train(run, StopSignal()) == DONE, run.read_failure()
    return run


def evaluated(run: RunDir) -> Evaluation:
    assert job_evaluation.run(run, run.adapter) == DONE, run.read_failure()
    evaluation = run.read_evaluation()
    assert evaluation is not None
    return evaluation


def reported(run: RunDir) -> list[dict[str, float]]:
    """What each step and each look at the held-out rows said, without what depends on the clock."""
    found = [event.metrics for _, event in run.events() if isinstance(event, Metrics)]
    return [{name: value for name, value in each.items() if name not in CLOCK} for each in found]


def stored(run: RunDir) -> dict[str, torch.Tensor]:
    return load_file(run.adapter / "adapter_model.safetensors")
