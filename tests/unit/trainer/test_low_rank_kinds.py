"""Kinds of adapters that are no LoRA and come to one: the rank that is promised for them is the rank that they have."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from peft_studio.algorithms import Algorithm
from peft_studio.config import TrainingConfig
from peft_studio.serve_targets import LOW_RANK
from peft_studio.trainer.adapter import adapter_config, add_adapter
from peft_studio.trainer.model import load_base, read_base


@pytest.mark.parametrize("algorithm", LOW_RANK)
def test_what_it_changes_has_the_rank_that_is_promised(algorithm: Algorithm, model: Path) -> None:
    config = TrainingConfig(base_model=str(model), dataset_path="d", algorithm=algorithm, rank=2)
    base = read_base(config, None)
    loaded = load_base(base, config)
    before = {name: weight.clone() for name, weight in loaded.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what PEFT says about its own names
        adapted: Any = add_adapter(loaded, adapter_config(config, base, loaded, 100), base, config)
        torch.manual_seed(0)
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.data += 0.1 * torch.randn_like(weight)
        merged = adapted.eval().merge_and_unload()
    promised = LOW_RANK[algorithm](config)
    changed = {name: weight - before[name] for name, weight in merged.state_dict().items()}
    changed = {name: change for name, change in changed.items() if bool(change.any())}
    assert changed
    for name, change in changed.items():
        assert "_proj." in name
        sizes = torch.linalg.svdvals(change.double())
        assert float(sizes[promised:].max() if len(sizes) > promised else 0) < 1e-4 * float(sizes[0])
