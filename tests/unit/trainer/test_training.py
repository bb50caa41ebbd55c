import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, get_linear_schedule_with_warmup

from peft_studio.config import TrainingConfig
from peft_studio.datasets import examples, inspect, split_rows
from peft_studio.events import Failure, Log, Metrics
from peft_studio.plan import ModelFacts, Plan, RowFormat
from peft_studio.run_dir import RunDir
from peft_studio.trainer.adapter import adapter_config, add_adapter
from peft_studio.trainer.data import Row, encode, epoch_order
from peft_studio.trainer.model import load_base, read_base
from peft_studio.trainer.outcome import DONE, FAILED, STOPPED
from peft_studio.trainer.program import run as train
from peft_studio.trainer.render import Renderer
from peft_studio.trainer.stop import StopSignal
from tests.tiny import TEMPLATE, conversations, make_run, tiny_model, write_rows
from tests.unit.trainer.padded import padded


def trained(run: RunDir) -> RunDir:
    assert train(run, StopSignal()) == DONE, run.read_failure()
    return run


def curve(run: RunDir, name: str = "loss") -> list[float]:
    metrics = [event.metrics for _, event in run.events() if isinstance(event, Metrics)]
    return [each[name] for each in metrics if name in each]


def failure_of(run: RunDir) -> Failure:
    failure = run.read_failure()
    assert failure is not None
    return failure


def stored(run: RunDir) -> dict[str, torch.Tensor]:
    return load_file(run.adapter / "adapter_model.safetensors")


def rows_in_order(config: TrainingConfig) -> list[Row]:
    base = read_base(config, None)
    rows = encode(examples(config.dataset_path), base, Renderer(base.tokenizer, RowFormat.MESSAGES), 128).rows
    kept, _ = split_rows(len(rows), 0.0, config.seed)
    return [rows[i] for i in kept]


def stock_loop(config: TrainingConfig) -> tuple[list[float], dict[str, torch.Tensor]]:
    """What anybody would write with transformers and PEFT: masks, labels, whole logits, their scheduler."""
    rows, size = rows_in_order(config), config.batch_size
    torch.manual_seed(config.seed)
    model: Any = get_peft_model(
        AutoModelForCausalLM.from_pretrained(config.base_model),
        LoraConfig(
            task_type="CAUSAL_LM",
            r=config.rank,
            lora_alpha=int(config.alpha),
            lora_dropout=config.dropout,
            target_modules=config.target_modules,
        ),
    )
    torch.manual_seed(config.seed)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.0)
    steps = config.num_epochs * -(-len(rows) // config.effective_batch_size)
    scheduler = get_linear_schedule_with_warmup(optimizer, config.warmup_steps, steps)
    losses: list[float] = []
    for epoch in range(config.num_epochs):
        order = [rows[i] for i in epoch_order(len(rows), config.seed, epoch)]
        for start in range(0, len(rows), config.effective_batch_size):
            step = order[start : start + config.effective_batch_size]
            answers = sum(int(row.learn[1:].sum()) for row in step)
            losses.append(0.0)
            for i in range(0, len(step), size):
                loss = model(**padded(step[i : i + size]), num_items_in_batch=torch.tensor(answers)).loss
                loss.backward()
                losses[-1] += loss.item()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    return losses, {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_loss_curve_and_adapter_are_those_of_a_stock_loop(
    dropout: float, tmp_path: Path, model: Path, rows: Path
) -> None:
    targets = ["q_proj", "v_proj", "down_proj"]
    job: dict[str, Any] = {"warmup_steps": 2, "target_modules": targets, "max_length": 128}
    # Dropout falls on the same numbers only where the batches are laid out in the same way.
    job |= {"packing": False, "group_by_length": False} if dropout else {}
    run = make_run(tmp_path / "run", model, rows, dropout=dropout, **job)
    losses, weights = stock_loop(run.read_config())
    trained(run)
    assert curve(run) == pytest.approx(losses, rel=1e-5)
    ours = stored(run)
    assert len(ours) == len(weights) == 2 * 2 * 3
    for name, weight in weights.items():
        torch.testing.assert_close(ours[name.replace(".default", "")], weight, rtol=1e-3, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings:UserWarning")
def test_the_output_head_can_be_adapted_when_it_is_named(tmp_path: Path, model: Path, rows: Path) -> None:
    run = trained(make_run(tmp_path / "run", model, rows, target_modules=["lm_head"], num_epochs=6))
    assert curve(run)[-1] < curve(run)[0] - 0.5
    assert {name.split(".")[-3] for name in stored(run)} == {"lm_head"}


@pytest.mark.filterwarnings("ignore")  # those of other people's trainers
def test_loss_curve_and_adapter_are_those_of_trl(tmp_path: Path) -> None:
    """Takes a while: importing the peer alone is several seconds."""
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    marked = TEMPLATE.replace(
        "{{ message.content }}<|end|>\n",
        "{% if message.role == 'assistant' %}{% generation %}{{ message.content }}<|end|>{% endgeneration %}"
        "{% else %}{{ message.content }}<|end|>{% endif %}{{ '\\n' }}",
    )
    model = tiny_model(tmp_path / "model", marked)
    raw = conversations(14)
    run = make_run(tmp_path / "run", model, write_rows(tmp_path / "rows.jsonl", raw), num_epochs=1, dropout=0)
    trained(run)
    config = run.read_config()
    base = read_base(config, None)
    kept, _ = split_rows(len(raw), 0.0, config.seed)
    order = [raw[kept[i]] for i in epoch_order(len(kept), config.seed, 0)]
    raw_model = load_base(base, config)
    trainer = SFTTrainer(
        model=add_adapter(raw_model, adapter_config(config, base, raw_model, 4), base, config),
        args=SFTConfig(
            output_dir=str(tmp_path / "trl"),
            learning_rate=config.learning_rate,
            per_device_train_batch_size=config.batch_size,
            gradient_accumulation_steps=config.gradient_accumulation_steps,
            num_train_epochs=1,
            lr_scheduler_type="linear",
            optim="adamw_torch",
            train_sampling_strategy="sequential",
            assistant_only_loss=True,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(order),
        processing_class=base.tokenizer,
    )
    trainer.train()
    theirs = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert curve(run) == pytest.approx(theirs, abs=2e-4)  # TRL rounds what it logs
    ours = stored(run)
    assert len(ours) == 2 * 2 * 7
    for name, weight in trainer.model.named_parameters():  # pyright: ignore[reportOptionalMemberAccess]
        if weight.requires_grad:
            torch.testing.assert_close(ours[name.replace(".default", "")], weight.detach(), rtol=1e-3, atol=2e-5)


def test_every_step_is_reported_with_all_its_numbers(tmp_path: Path, model: Path, rows: Path) -> None:
    run = trained(make_run(tmp_path / "run", model, rows, warmup_steps=2))
    metrics = [event.metrics for _, event in run.events() if isinstance(event, Metrics)]
    assert [each["step"] for each in metrics] == list(range(1, 9))
    assert [each["learning_rate"] for each in metrics[:4]] == pytest.approx([0, 2.5e-3, 5e-3, 5e-3 * 5 / 6])
    assert [each["epoch"] for each in metrics] == pytest.approx([i / 4 for i in range(1, 9)])
    for each in metrics:
        assert each["total_steps"] == 8
        assert each["grad_norm"] > 0
        assert each["tokens_per_second"] > 0
    lines = [event.message for _, event in run.events() if isinstance(event, Log)]
    assert lines[0] == "Starting training..."
    assert f"Epoch 1/2, Step 3/8, Loss: {metrics[2]['loss']:.3f}" in lines


def test_the_summary_says_what_was_done(tmp_path: Path, model: Path, rows: Path) -> None:
    run = trained(make_run(tmp_path / "run", model, rows, validation_split=0.2))
    summary = run.read_summary()
    assert summary is not None
    assert (summary.total_steps, summary.epochs) == (6, 2)
    assert (summary.train_rows, summary.held_out_rows) == (11, 3)
    assert summary.final_loss == curve(run)[-1]
    assert summary.best_loss == min(curve(run))
    assert summary.eval_loss == curve(run, "eval_loss")[-1]
    assert len(curve(run, "eval_loss")) == 2
    assert 0 < summary.supervised_tokens < summary.tokens
    assert summary.trainable_parameters == sum(weight.numel() for weight in stored(run).values())
    assert summary.resumed_at == []
    assert summary.peak_memory_mb > 50
    assert summary.versions["peft"]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # stock PEFT's
def test_the_adapter_is_one_that_stock_peft_loads_with_its_tokenizer(tmp_path: Path, model: Path, rows: Path) -> None:
    run = trained(make_run(tmp_path / "run", model, rows))
    settings = json.loads((run.adapter / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(model)
    assert settings["lora_alpha"] == 16
    layers = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj"
    assert set(settings["target_modules"]) == set(layers.split())
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), run.adapter)
    for name, weight in stored(run).items():
        place = name.replace(".weight", ".default.weight")
        assert torch.equal(adapted.get_parameter(place), weight)
    assert AutoTokenizer.from_pretrained(run.adapter).chat_template == TEMPLATE


def test_training_stops_at_max_steps(tmp_path: Path, model: Path, rows: Path) -> None:
    run = trained(make_run(tmp_path / "run", model, rows, max_steps=3, validation_split=0.1))
    assert len(curve(run)) == 3
    assert len(curve(run, "eval_loss")) == 1
    assert run.read_summary().epochs == 0.75  # pyright: ignore[reportOptionalMemberAccess]


def test_the_same_seed_trains_the_same_adapter_and_another_one_another(tmp_path: Path, model: Path, rows: Path) -> None:
    once, again, other = (
        stored(trained(make_run(tmp_path / str(i), model, rows, seed=seed))) for i, seed in enumerate((7, 7, 8))
    )
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert not all(torch.equal(once[name], other[name]) for name in once)


def test_a_finished_run_is_not_trained_again(tmp_path: Path, model: Path, rows: Path) -> None:
    run = trained(make_run(tmp_path / "run", model, rows))
    before = run.events_path.read_bytes()
    assert train(run, StopSignal()) == DONE
    assert run.events_path.read_bytes() == before


def test_a_run_asked_to_stop_before_it_began_stops(tmp_path: Path, model: Path, rows: Path) -> None:
    stop = StopSignal()
    stop.set("changed my mind")
    assert train(make_run(tmp_path / "run", model, rows), stop) == STOPPED


def test_a_loss_that_is_no_number_ends_training_with_advice(tmp_path: Path, rows: Path) -> None:
    broken = tiny_model(tmp_path / "model")
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"].fill_(float("nan"))
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    run = make_run(tmp_path / "run", broken, rows)
    assert train(run, StopSignal()) == FAILED
    failure = failure_of(run)
    assert failure.code == "DIVERGED"
    assert failure.error == "The loss became nan at step 1."
    assert "Lower learning_rate" in failure.details
    assert [event for _, event in run.events() if isinstance(event, Failure)] == [failure]


def test_a_layer_that_is_not_there_is_refused_by_name(tmp_path: Path, model: Path, rows: Path) -> None:
    run = make_run(tmp_path / "run", model, rows, target_modules=["q_proj", "q_porj"])
    assert train(run, StopSignal()) == FAILED
    failure = failure_of(run)
    assert failure.code == "INVALID_CONFIG"
    assert "'q_porj'" in failure.error
    assert "q_proj" in failure.details
    assert curve(run) == []


def test_a_model_that_is_not_there_is_refused(tmp_path: Path, rows: Path) -> None:
    run = make_run(tmp_path / "run", tmp_path / "nothing", rows)
    assert train(run, StopSignal()) == FAILED
    assert failure_of(run).code == "INVALID_CONFIG"


def test_data_in_which_no_answer_is_left_is_refused(tmp_path: Path, model: Path) -> None:
    row = {"messages": [{"role": "user", "content": "the " * 60}, {"role": "assistant", "content": "cat"}]}
    run = make_run(tmp_path / "run", model, write_rows(tmp_path / "rows.jsonl", [row]), max_length=16)
    assert train(run, StopSignal()) == FAILED
    assert "nothing to learn" in failure_of(run).error


def test_rows_that_are_cut_or_left_out_are_counted(tmp_path: Path, model: Path) -> None:
    long = {"messages": [{"role": "user", "content": "the " * 60}, {"role": "assistant", "content": "cat"}]}
    dataset = write_rows(tmp_path / "rows.jsonl", [long, *conversations(4)])
    run = trained(make_run(tmp_path / "run", model, dataset, max_length=40, num_epochs=1))
    warnings = [event.message for _, event in run.events() if isinstance(event, Log) and event.level == "WARNING"]
    assert len(warnings) == 2
    summary = run.read_summary()
    assert summary is not None
    assert (summary.train_rows, summary.truncated_rows) == (4, 1)


def plan_for(run: RunDir, **facts: Any) -> Plan:
    config = run.read_config()
    model: dict[str, Any] = {
        "id": config.base_model,
        "architecture": "LlamaForCausalLM",
        "parameters": 1,
        "linear_modules": [],
    }
    return Plan(
        config=config,
        model=ModelFacts(**{**model, **facts}),
        dataset=inspect(config.dataset_path),
        cache_key="key",
        total_steps=1,
        estimated_cost=None,
        estimated_duration_minutes=None,
    )


def test_what_validation_pinned_down_is_what_is_trained_on(tmp_path: Path, model: Path, rows: Path) -> None:
    run = make_run(tmp_path / "run", Path("wherever/the-name-points"), rows, num_epochs=1)
    run.write("plan.json", plan_for(run, path=str(model), revision="0123abc"))
    trained(run)
    settings = json.loads((run.adapter / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(model)
    assert settings["revision"] is None  # a folder has none that could be asked for


def test_data_that_changed_since_validation_is_refused(tmp_path: Path, model: Path) -> None:
    dataset = write_rows(tmp_path / "rows.jsonl", conversations(4))
    run = make_run(tmp_path / "run", model, dataset)
    run.write("plan.json", plan_for(run))
    write_rows(dataset, conversations(4, seed=1))
    assert train(run, StopSignal()) == FAILED
    assert failure_of(run).details.startswith("dataset_path")


def test_a_file_without_rows_is_refused(tmp_path: Path, model: Path) -> None:
    run = make_run(tmp_path / "run", model, write_rows(tmp_path / "rows.jsonl", []))
    assert train(run, StopSignal()) == FAILED
    assert failure_of(run).code == "INVALID_CONFIG"


def test_a_configuration_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    (tmp_path / "config.json").write_text('{"base_model": "x", "dataset_path": "y", "rank": 0}')
    assert train(run, StopSignal()) == FAILED
    assert "rank" in failure_of(run).details
