"""The same model, rows and seed, trained by TRL: the same losses, rewards and adapter. Importing it takes seconds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

from peft_studio.datasets import split_rows
from peft_studio.events import Metrics
from peft_studio.run_dir import RunDir
from peft_studio.trainer.adapter import adapter_config, add_adapter
from peft_studio.trainer.data import epoch_order
from peft_studio.trainer.model import load_base, read_base
from peft_studio.trainer.outcome import DONE
from peft_studio.trainer.program import run as train
from peft_studio.trainer.stop import StopSignal
from tests.tiny import make_run, preferences, verdicts, write_rows

pytestmark = pytest.mark.filterwarnings("ignore")  # those of other people's trainers
ROWS = 12


def reported(run: RunDir) -> list[dict[str, float]]:
    return [event.metrics for _, event in run.events() if isinstance(event, Metrics) and "loss" in event.metrics]


def ordered(raw: list[dict[str, Any]], run: RunDir, epochs: int) -> Dataset:
    """The rows in the order in which the run goes through them."""
    seed = run.read_config().seed
    kept, _ = split_rows(len(raw), 0.0, seed)
    return Dataset.from_list([raw[kept[i]] for epoch in range(epochs) for i in epoch_order(len(kept), seed, epoch)])


def by_trl(trainer: Any, settings: Any, run: RunDir, rows: Dataset, **own: Any) -> Any:
    config = run.read_config()
    base = read_base(config, None)
    base.config.num_labels = 1
    raw_model = load_base(base, config)
    base.tokenizer.pad_token = "<|user|>"  # a model that looks for the end of a text must not take it for padding
    peer = trainer(
        model=add_adapter(raw_model, adapter_config(config, base, raw_model, 4), base, config),
        args=settings(
            output_dir=str(run.path / "trl"),
            learning_rate=config.learning_rate,
            per_device_train_batch_size=config.batch_size,
            num_train_epochs=1,
            lr_scheduler_type="linear",
            optim="adamw_torch",
            train_sampling_strategy="sequential",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
            **own,
        ),
        train_dataset=rows,
        processing_class=base.tokenizer,
    )
    peer.train()
    return peer


def assert_alike(run: RunDir, peer: Any, names: Mapping[str, str], tolerance: float = 2e-4) -> None:
    ours, theirs = reported(run), [entry for entry in peer.state.log_history if "loss" in entry]
    assert len(ours) == len(theirs)
    for name, other in {"loss": "loss", **names}.items():
        assert [each[name] for each in ours] == pytest.approx([each[other] for each in theirs], abs=tolerance), name
    stored = load_file(run.adapter / "adapter_model.safetensors")
    weights = {name: weight for name, weight in peer.model.named_parameters() if weight.requires_grad}
    assert len(stored) == len(weights)
    for name, weight in weights.items():
        ours = stored[name.replace(".default", "").replace("modules_to_save.", "")]
        torch.testing.assert_close(ours, weight.detach(), rtol=1e-3, atol=5e-5)


REWARDS = {name: name for name in ("rewards/chosen", "rewards/rejected", "rewards/margins")}
LOGPS = {name: name for name in ("logps/chosen", "logps/rejected")}
JOB: dict[str, Any] = {"batch_size": 4, "gradient_accumulation_steps": 1, "num_epochs": 1}


def trained(folder: Path, model: Path, raw: list[dict[str, Any]], **job: Any) -> RunDir:
    run = make_run(folder / "run", model, write_rows(folder / "rows.jsonl", raw), **JOB | job)
    assert train(run, StopSignal()) == DONE, run.read_failure()
    return run


@pytest.mark.parametrize("loss_type", ["sigmoid", "hinge", "ipo", "robust"])
def test_dpo_is_that_of_trl(loss_type: str, tmp_path: Path, model: Path) -> None:
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    raw = preferences(ROWS)
    smoothing = 0.2 if loss_type == "robust" else 0.0
    options = {"loss_type": loss_type, "label_smoothing": smoothing}
    run = trained(tmp_path, model, raw, objective="dpo", objective_options=options)
    peer = by_trl(DPOTrainer, DPOConfig, run, ordered(raw, run, 1), loss_type=[loss_type], label_smoothing=smoothing)
    assert_alike(run, peer, REWARDS | LOGPS)
    assert reported(run)[-1]["rewards/accuracies"] == peer.state.log_history[-2]["rewards/accuracies"]


def test_orpo_is_that_of_trl(tmp_path: Path, model: Path) -> None:
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    raw = preferences(ROWS)
    run = trained(tmp_path, model, raw, objective="orpo")
    peer = by_trl(ORPOTrainer, ORPOConfig, run, ordered(raw, run, 1))
    own = {name: name for name in ("nll_loss", "log_odds_ratio", "log_odds_chosen")}
    assert_alike(run, peer, REWARDS | LOGPS | own)


@pytest.mark.parametrize("more", [{}, {"cpo_alpha": 0.5, "label_smoothing": 0.1, "beta": 2.0}])
def test_simpo_is_that_of_trl(more: dict[str, float], tmp_path: Path, model: Path) -> None:
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    raw = preferences(ROWS)
    run = trained(tmp_path, model, raw, objective="simpo", objective_options=more)
    peer = by_trl(CPOTrainer, CPOConfig, run, ordered(raw, run, 1), loss_type="simpo", **{"cpo_alpha": 0.0} | more)
    assert_alike(run, peer, REWARDS | LOGPS | ({"nll_loss": "nll_loss"} if more else {}))


def test_kto_is_that_of_trl(tmp_path: Path, model: Path) -> None:
    """In one batch a step TRL's other answers are ours: each row's prompt with the answer of the row before it."""
    from trl.trainer.kto_config import KTOConfig
    from trl.trainer.kto_trainer import KTOTrainer

    raw = verdicts(ROWS)
    options = {"desirable_weight": 1.5, "undesirable_weight": 0.5}
    run = trained(tmp_path, model, raw, objective="kto", batch_size=ROWS, num_epochs=3, objective_options=options)
    kept, _ = split_rows(len(raw), 0.0, 0)
    rows = Dataset.from_list([raw[i] for i in kept] * 3)
    peer = by_trl(KTOTrainer, KTOConfig, run, rows, **options)
    assert_alike(run, peer, REWARDS | LOGPS | {"kl": "kl"})
    assert reported(run)[-1]["kl"] > 0


@pytest.mark.parametrize("centre", [0.0, 0.01])
def test_reward_is_that_of_trl(centre: float, tmp_path: Path, model: Path) -> None:
    from trl.trainer.reward_config import RewardConfig
    from trl.trainer.reward_trainer import RewardTrainer

    raw = preferences(ROWS)
    options = {"center_rewards_coefficient": centre}
    run = trained(tmp_path, model, raw, objective="reward", objective_options=options)
    peer = by_trl(RewardTrainer, RewardConfig, run, ordered(raw, run, 1), center_rewards_coefficient=centre or None)
    assert_alike(run, peer, {name: name for name in ("mean_reward", "margin", "accuracy")})
