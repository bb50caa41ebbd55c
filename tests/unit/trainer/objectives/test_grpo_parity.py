"""The same answers with the same rewards, in TRL's loss: the same loss and the same gradients."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from peft_studio import datasets
from peft_studio.config import TrainingConfig
from peft_studio.grpo import GrpoConfig
from peft_studio.trainer.adapter import adapter_config, add_adapter
from peft_studio.trainer.data import batches
from peft_studio.trainer.model import load_base, read_base
from peft_studio.trainer.objectives.criterion import Tally
from peft_studio.trainer.objectives.grpo import Grpo, advantages
from peft_studio.trainer.objectives.grpo_loss import Completion
from peft_studio.trainer.render import Renderer
from peft_studio.trainer.stop import StopSignal
from tests.tiny import questions, write_rows

pytestmark = pytest.mark.filterwarnings("ignore")  # those of other people's trainers
TRLS = (
    "loss_type",
    "scale_rewards",
    "importance_sampling_level",
    "beta",
    "use_bias_correction_kl",
    "epsilon",
    "epsilon_high",
    "temperature",
)


def in_columns(step: list[Completion]) -> dict[str, torch.Tensor]:
    """Completions the way TRL lays them out: prompts padded on the left, answers on the right."""
    answers = [item.texts[0].ids[-item.length :] for item in step]
    prompts = [item.texts[0].ids[: -item.length] for item in step]
    wide, long = max(map(len, prompts)), max(map(len, answers))

    def padded(rows: list[Any], size: int, *, left: bool = False) -> torch.Tensor:
        sides = [(size - len(row), 0) if left else (0, size - len(row)) for row in rows]
        return torch.from_numpy(np.stack([np.pad(row, side) for row, side in zip(rows, sides, strict=True)]))

    return {
        "prompt_ids": padded(prompts, wide, left=True),
        "prompt_mask": padded([np.ones_like(row) for row in prompts], wide, left=True),
        "completion_ids": padded(answers, long),
        "completion_mask": padded([np.ones_like(row) for row in answers], long),
        "advantages": torch.tensor([item.advantage for item in step]),
        "old_per_token_logps": padded([item.old for item in step], long),
        "ref_per_token_logps": padded([item.reference for item in step], long),
        "num_items_in_batch": torch.tensor(sum(item.length for item in step)),
    }


def by_trl(model: Any, grpo: GrpoConfig, tokenizer: Any, folder: Path, step: list[Completion]) -> tuple[Any, Any]:
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    peer = GRPOTrainer(
        model=model,
        reward_funcs=[lambda completions, **_: [0.0] * len(completions)],
        args=GRPOConfig(
            output_dir=str(folder / "trl"),
            per_device_train_batch_size=len(step),
            num_generations=grpo.num_generations,
            max_completion_length=grpo.max_completion_length,
            num_iterations=2,
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            **{name: getattr(grpo, name) for name in TRLS},
        ),
        train_dataset=Dataset.from_list([{"prompt": "?"}] * len(step)),
        processing_class=tokenizer,
    )
    peer.current_gradient_accumulation_steps = 1
    model.zero_grad()
    loss = peer._compute_loss(model, in_columns(step))
    loss.backward()
    return loss.detach(), peer._metrics["train"]


@pytest.mark.parametrize(
    "settings",
    [
        {"loss_type": "dapo", "beta": 0.04, "temperature": 0.7},
        {"loss_type": "grpo", "scale_rewards": "batch", "epsilon": 0.02, "epsilon_high": 0.05, "beta": 0.1},
        {
            "loss_type": "dr_grpo",
            "scale_rewards": "none",
            "epsilon": 0.05,
            "beta": 1.0,
            "use_bias_correction_kl": False,
        },
        {"importance_sampling_level": "sequence", "epsilon": 0.01, "beta": 0.01},
    ],
)
def test_loss_and_gradients_are_those_of_trl(settings: dict[str, Any], tmp_path: Path, model: Path) -> None:
    rewards = [{"function": "length", "options": {"at_most": 4}}]
    sizes = {"num_generations": 4, "max_completion_length": 8, "num_iterations": 2}
    config = TrainingConfig(
        base_model=str(model),
        dataset_path=str(write_rows(tmp_path / "rows.jsonl", questions(4))),
        objective="grpo",  # pyright: ignore[reportArgumentType]
        grpo=GrpoConfig.model_validate({"rewards": rewards, **sizes, **settings}),
        dropout=0,
        batch_size=3,
    )
    assert config.grpo
    base = read_base(config, None)
    bare = load_base(base, config)
    adapted: Any = add_adapter(bare, adapter_config(config, base, bare, 4), base, config)
    rows = list(datasets.examples(config.dataset_path, objective=config.objective))
    criterion = Grpo(config, base)
    prompts = criterion.encode(rows, Renderer(base.tokenizer, rows[0].layout), 64).rows
    criterion.begin(adapted, prompts)
    step = list(criterion.begin_step(adapted, prompts, StopSignal(), 0))
    with torch.no_grad():  # as after a step
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.02)

    tally, loss = Tally(), torch.zeros(())
    for some in batches(step, config.batch_size, by_length=True):
        with criterion.laid_out(adapted, some) as batch:
            part = criterion.loss(adapted, batch, some, step, tally)
            part.backward()
        loss += part.detach()
    trained = {name: each for name, each in adapted.named_parameters() if each.requires_grad}
    ours = {name: each.grad.clone() for name, each in trained.items()}
    theirs, metrics = by_trl(adapted, config.grpo, base.tokenizer, tmp_path, step)

    assert loss.item() == pytest.approx(theirs.item(), abs=2e-4)
    for name, each in trained.items():
        torch.testing.assert_close(ours[name], each.grad, rtol=1e-3, atol=2e-4)
    means = criterion.report(tally)
    assert means["kl"] == pytest.approx(metrics["kl"][-1], abs=2e-4)
    assert means["clip_ratio/region_mean"] == pytest.approx(metrics["clip_ratio/region_mean"][-1], abs=1e-6)
    assert means["clip_ratio/region_mean"] > 0 or "epsilon" not in settings


def test_advantages_are_those_of_trl() -> None:
    """Its formula, of which it makes no function: distance from the group's mean by its deviation, and 1e-4."""
    worth = np.array([[0.0, 1.0, 2.0, 5.0], [1.0, 1.0, 1.0, 1.0]])
    groups = torch.from_numpy(worth)
    expected = (groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)
    np.testing.assert_allclose(advantages(worth, "group"), expected.numpy(), atol=1e-9)
    flat = (groups - groups.mean(1, keepdim=True)) / (groups.std() + 1e-4)
    np.testing.assert_allclose(advantages(worth, "batch"), flat.numpy(), atol=1e-9)
    np.testing.assert_allclose(advantages(worth, "none"), worth - worth.mean(1, keepdims=True), atol=1e-9)
