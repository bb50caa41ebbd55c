"""Every row of the table: it trains, is taken up again as if nothing had been, and stock PEFT loads what it stored."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import PeftModel
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import load_file
from transformers import get_linear_schedule_with_warmup

from infra.serving.adapter_files import BaseName, read_adapter
from peft_studio.algorithm_table import METHODS
from peft_studio.algorithms import Algorithm, Quantization
from peft_studio.config import TrainingConfig
from peft_studio.errors import InvalidConfig
from peft_studio.events import Log, Metrics
from peft_studio.run_dir import RunDir
from peft_studio.trainer.adalora import RankAllocation
from peft_studio.trainer.adapter import adapter_config, add_adapter
from peft_studio.trainer.checkpoint import Checkpoints
from peft_studio.trainer.data import Row, batches, collate, epoch_order
from peft_studio.trainer.fit import Schedule
from peft_studio.trainer.layers import skeleton
from peft_studio.trainer.loss import summed_loss
from peft_studio.trainer.model import load_base, read_base
from peft_studio.trainer.objectives import criterion_of
from peft_studio.trainer.outcome import DONE, FAILED, STOPPED
from peft_studio.trainer.prepare import prepare
from peft_studio.trainer.program import purpose
from peft_studio.trainer.program import run as train
from peft_studio.trainer.report import Reporter
from peft_studio.trainer.stop import StopSignal
from peft_studio.vllm_rules import broken_rules
from tests.tiny import conversations, make_run, tiny_model, write_rows
from tests.unit.trainer.padded import padded
from tests.unit.trainer.stops import StopAtLook

# Eight steps, each over the same four rows.
JOB: dict[str, Any] = {
    "batch_size": 4,
    "gradient_accumulation_steps": 1,
    "num_epochs": 8,
    "checkpoint_steps": 8,
    "dropout": 0.0,
    "learning_rate": 1e-2,
}
# What a row needs beside its name, or learns better with on a model this small.
OWN: dict[Algorithm, dict[str, Any]] = {
    Algorithm.TRAINABLE_TOKENS: {"trainable_tokens": ["<|assistant|>", "<|end|>", "a", "e"]},
    Algorithm.FOURIERFT: {"algorithm_options": {"n_frequency": 100}},
    Algorithm.WAVEFT: {"algorithm_options": {"n_frequency": 100}},
    Algorithm.PROMPT_TUNING: {"algorithm_options": {"num_virtual_tokens": 8}},
    Algorithm.PREFIX_TUNING: {"algorithm_options": {"num_virtual_tokens": 8}},
    Algorithm.P_TUNING: {"algorithm_options": {"num_virtual_tokens": 8}},
    # Its experts are chosen by the mean over a batch, padding too.
    Algorithm.LILY: {"batch_size": 1, "gradient_accumulation_steps": 4},
    # Its random numbers fall on the same tokens only where these are laid out in the same way.
    Algorithm.PVERA: {"packing": False, "group_by_length": False},
}
# Directions in which they change nothing have gradients of rounding errors alone, of which AdamW makes whole steps.
ROUGH = {Algorithm.DEFT: 1e-3, Algorithm.RANDLORA: 3e-3}
# Stored otherwise than it was trained: pruned, or as plain LoRA for the base model as it was.
CONVERTED = {Algorithm.ADALORA, Algorithm.PISSA, Algorithm.OLORA}
PROMPT = torch.tensor([[0, 3, 50, 60, 70, 80, 2, 4, 90, 100]])


@pytest.fixture(scope="module")
def four_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", conversations(4))


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest whose layers four-bit quantization on a CPU can do without gradients too."""
    return tiny_model(tmp_path_factory.mktemp("wide"), hidden_size=64, intermediate_size=128)


def losses(run: RunDir) -> list[float]:
    return [event.metrics["loss"] for _, event in run.events() if isinstance(event, Metrics)]


def stored(run: RunDir) -> dict[str, torch.Tensor]:
    return load_file(run.adapter / "adapter_model.safetensors")


def built(config: TrainingConfig, steps: int = 8) -> Any:
    base = read_base(config, None)
    settings = adapter_config(config, base, skeleton(base.config), steps)
    return add_adapter(load_base(base, config), settings, base, config)


def as_trained(run: RunDir) -> Any:
    """The model as training left it, from its last checkpoint."""
    config = run.read_config()
    base, report = read_base(config, None), Reporter(run)
    rows, _ = prepare(config, None, base, criterion_of(config, base), report)
    model = built(config, Schedule.of(config, len(rows.rows)).total)
    parts = {"ranks": RankAllocation(model)} if config.algorithm is Algorithm.ADALORA else {}
    progress = Checkpoints(run, purpose(config, rows), report).restore(model, parts)
    assert progress is not None
    return model.eval()


def as_stored(run: RunDir) -> Any:
    config = run.read_config()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what stock PEFT says to whoever loads with it
        return PeftModel.from_pretrained(load_base(read_base(config, None), config), str(run.adapter)).eval()


def assert_stock_peft_answers_alike(run: RunDir, exact: bool = True) -> None:
    with torch.no_grad():
        theirs = as_stored(run)(PROMPT).logits
        ours = as_trained(run)(PROMPT).logits
    if exact:
        assert torch.equal(ours, theirs)
    else:
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def stock_curve(run: RunDir) -> list[float]:
    """The losses of a loop as PEFT's own examples have it: masks, labels, whole logits, its way with each algorithm."""
    config = run.read_config()
    base = read_base(config, None)
    rows, _ = prepare(config, None, base, criterion_of(config, base), Reporter(run))
    model = built(config)
    torch.manual_seed(config.seed)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer: Any = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=0.0)
    if config.algorithm is Algorithm.LORA_PLUS:
        ratio = config.option("lr_ratio")
        optimizer = create_loraplus_optimizer(
            model, torch.optim.AdamW, lr=config.learning_rate, loraplus_lr_ratio=ratio
        )
    scheduler = get_linear_schedule_with_warmup(optimizer, 0, config.num_epochs)
    found: list[float] = []
    for epoch in range(config.num_epochs):
        step = [rows.rows[i] for i in epoch_order(len(rows.rows), config.seed, epoch)]
        tokens = torch.tensor(sum(row.supervised for row in step))
        loss = 0.0
        for some in batches(step, config.batch_size, by_length=False):
            part = model(**padded(some), num_items_in_batch=tokens).loss
            part.backward()
            loss += part.item()
        if config.algorithm is Algorithm.ADALORA:
            loss -= RankAllocation(model).penalty().item()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        scheduler.step()
        if config.algorithm is Algorithm.ADALORA:
            model.base_model.update_and_allocate(epoch + 1)
        optimizer.zero_grad()
        found.append(loss)
    return found


def can_be_served(run: RunDir) -> bool:
    config = run.read_config().model_copy(update={"quantization": Quantization.NONE})
    model = load_base(read_base(config, None), config)
    try:
        return bool(read_adapter(run.adapter, model, BaseName(config.base_model)).weights)
    except InvalidConfig:
        return False


@pytest.mark.parametrize("algorithm", Algorithm)
def test_a_row_trains_goes_on_after_a_stop_and_is_loaded_by_stock_peft(
    algorithm: Algorithm, tmp_path: Path, model: Path, wide_model: Path, four_rows: Path
) -> None:
    job = JOB | OWN.get(algorithm, {})
    base = wide_model if METHODS[algorithm].quantizations[0] is Quantization.INT4 else model
    run = make_run(tmp_path / "run", base, four_rows, algorithm=algorithm, **job)
    assert train(run, StopSignal()) == DONE, run.read_failure()
    curve = losses(run)
    assert len(curve) == 8
    assert curve[-1] < curve[0] - 0.005
    assert curve == pytest.approx(stock_curve(run), rel=ROUGH.get(algorithm, 5e-5))
    assert_stock_peft_answers_alike(run, exact=algorithm not in CONVERTED)
    if algorithm is not Algorithm.LOFTQ:  # plain LoRA as well, but for a base model in int4
        assert can_be_served(run) == METHODS[algorithm].served
    # Where vLLM is said to serve it as it is, its own rules for the stored files say the same.
    as_it_is = METHODS[algorithm].served and algorithm is not Algorithm.DORA
    assert (broken_rules(run.adapter) == []) == (as_it_is or algorithm is Algorithm.LOFTQ)

    stopped = make_run(tmp_path / "stopped", base, four_rows, algorithm=algorithm, **job)
    in_step_five = StopAtLook(2 + 4 * job["gradient_accumulation_steps"] + 1)
    assert train(stopped, in_step_five) == STOPPED
    assert train(stopped, StopSignal()) == DONE, stopped.read_failure()
    assert stopped.read_summary().resumed_at == [4]  # pyright: ignore[reportOptionalMemberAccess]
    assert losses(stopped) == curve
    once, again = stored(run), stored(stopped)
    assert once.keys() == again.keys()
    assert all(torch.equal(once[name], again[name]) for name in once)


@pytest.mark.parametrize("algorithm", Algorithm)
def test_everything_a_row_says_to_peft_is_a_word_of_pefts(algorithm: Algorithm) -> None:
    method = METHODS[algorithm]
    known = {field.name for field in dataclasses.fields(getattr(peft, method.peft))}
    said = {
        *method.takes.values(),
        *method.fixed,
        *(name for name, option in method.options.items() if not option.ours),
    }
    assert said <= known
    assert set(method.takes) <= set(TrainingConfig.model_fields)


HELD = [
    (algorithm, quantization)
    for algorithm, method in METHODS.items()
    for quantization in method.quantizations
    if quantization is not Quantization.NONE and method.peft != "LoraConfig"
]


@pytest.mark.parametrize(("algorithm", "quantization"), HELD)
def test_a_row_works_on_every_quantization_that_it_names(
    algorithm: Algorithm, quantization: Quantization, wide_model: Path
) -> None:
    config = TrainingConfig(
        base_model=str(wide_model), dataset_path="rows.jsonl", algorithm=algorithm, quantization=quantization,
        **OWN.get(algorithm, {}),
    )  # fmt: skip
    adapted = built(config)
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(trained.values(), lr=0.01)
    ids = PROMPT[0].numpy()
    for _ in range(2):
        summed_loss(adapted, collate([Row(ids, ids > 0)])).backward()
        optimizer.step()
    gradients = [p.grad for p in trained.values() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert any(gradient.abs().max() > 0 for gradient in gradients)


FIELDS: list[tuple[dict[str, Any], set[str]]] = [
    ({"modules_to_save": ["lm_head"]}, {"lm_head"}),
    ({"modules_to_save": ["embed_tokens"], "algorithm": "oft"}, {"embed_tokens"}),
    ({"modules_to_save": ["norm"], "algorithm": "ia3"}, {"norm"}),
    ({"rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 3}, "alpha_pattern": {"v_proj": 4}}, set()),
    ({"algorithm": "pissa", "use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 4}}, set()),
    ({"layers_to_transform": [1]}, set()),
    ({"use_rslora": True, "use_dora": True}, set()),
    ({"algorithm_options": {"init_lora_weights": "orthogonal"}}, set()),
    ({"trainable_tokens": ["<|end|>", "e"]}, {"embed_tokens"}),
    ({"algorithm": "lora_plus", "algorithm_options": {"lr_ratio": 4}}, set()),
    ({"algorithm": "prefix_tuning", "algorithm_options": {"num_virtual_tokens": 4, "prefix_projection": True}}, set()),
]


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings:UserWarning")
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("fields", "beside"), FIELDS)
def test_what_a_job_says_of_its_adapter_is_stored_so_that_stock_peft_knows(
    fields: dict[str, Any], beside: set[str], tied: bool, tmp_path: Path, model: Path, tied_model: Path, four_rows: Path
) -> None:
    run = make_run(tmp_path / "run", tied_model if tied else model, four_rows, **JOB | fields)
    assert train(run, StopSignal()) == DONE, run.read_failure()
    assert losses(run)[-1] < losses(run)[0]
    assert_stock_peft_answers_alike(run, exact="pissa" not in fields.values())
    assert beside <= {part for name in stored(run) for part in name.split(".")}


@pytest.fixture(scope="module")
def tied_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tied"), tie_word_embeddings=True)


def test_patterns_give_layers_ranks_and_scales_of_their_own(tmp_path: Path, model: Path) -> None:
    config = TrainingConfig(
        base_model=str(model), dataset_path="rows.jsonl",
        rank_pattern={"q_proj": 2, "layers.1.mlp.up_proj": 3}, alpha_pattern={"v_proj": 4},
    )  # fmt: skip
    layers = built(config).base_model.model.model.layers
    assert [layer.self_attn.q_proj.r["default"] for layer in layers] == [2, 2]
    assert [layer.mlp.up_proj.r["default"] for layer in layers] == [8, 3]
    assert layers[0].self_attn.v_proj.scaling["default"] == 4 / 8
    assert layers[0].self_attn.k_proj.scaling["default"] == 16 / 8


def test_only_the_blocks_asked_for_are_adapted(model: Path) -> None:
    config = TrainingConfig(base_model=str(model), dataset_path="rows.jsonl", layers_to_transform=[1])
    names = {name for name, p in built(config).named_parameters() if p.requires_grad}
    assert names
    assert all(".layers.1." in name for name in names)


@pytest.mark.parametrize(("bias", "trained"), [("none", 0), ("adapted", 1), ("all", 3)])
def test_biases_are_trained_where_that_is_asked_for(bias: str, trained: int, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", attention_bias=True, num_hidden_layers=1, mlp_bias=False)
    config = TrainingConfig.model_validate(
        {"base_model": str(model), "dataset_path": "rows.jsonl", "bias": bias, "target_modules": ["q_proj"]}
    )
    names = [name for name, p in built(config).named_parameters() if p.requires_grad and name.endswith("bias")]
    assert len(names) == (trained if bias != "all" else 4)


def test_lora_plus_lets_the_second_factors_learn_faster(tmp_path: Path, model: Path, four_rows: Path) -> None:
    from peft.optimizers import create_loraplus_optimizer

    from peft_studio.trainer.optimizer import parameter_groups

    config = TrainingConfig(base_model=str(model), dataset_path="rows.jsonl", algorithm=Algorithm.LORA_PLUS)
    adapted = built(config)
    stock = create_loraplus_optimizer(adapted, torch.optim.AdamW, lr=1.0, loraplus_lr_ratio=16.0)
    theirs = {id(p): group["lr"] for group in stock.param_groups for p in group["params"]}
    ours = {id(p): group["scale"] for group in parameter_groups(adapted, config) for p in group["params"]}
    assert ours == theirs
    assert set(ours.values()) == {1.0, 16.0}


def test_adalora_takes_ranks_away_until_the_budget_is_kept(tmp_path: Path, model: Path, four_rows: Path) -> None:
    run = make_run(tmp_path / "run", model, four_rows, algorithm="adalora", rank=4, **JOB)
    assert train(run, StopSignal()) == DONE, run.read_failure()
    ranks = [len(weight) for name, weight in stored(run).items() if "lora_A" in name]
    assert sum(ranks) <= 4 * 14
    assert min(ranks) < max(ranks)


def test_adalora_adds_the_penalty_that_pefts_forward_pass_adds(model: Path) -> None:
    config = TrainingConfig(base_model=str(model), dataset_path="rows.jsonl", algorithm=Algorithm.ADALORA)
    adapted = built(config)
    bare = adapted.base_model.model(PROMPT, labels=PROMPT).loss
    assert (adapted(PROMPT, labels=PROMPT).loss - bare).item() == pytest.approx(
        RankAllocation(adapted).penalty().item(), rel=1e-4
    )


def test_loftq_starts_nearer_to_the_base_model_than_its_rounded_weights(wide_model: Path, model: Path) -> None:
    def distance(algorithm: Algorithm) -> float:
        config = TrainingConfig(base_model=str(wide_model), dataset_path="rows.jsonl", algorithm=algorithm, rank=16)
        exact = load_base(read_base(config, None), config.model_copy(update={"algorithm": Algorithm.LORA}))
        with torch.no_grad():
            return (built(config).eval()(PROMPT).logits - exact(PROMPT).logits).norm().item()

    assert distance(Algorithm.LOFTQ) < 0.8 * distance(Algorithm.QLORA)


def test_what_the_algorithm_has_no_use_for_is_said(tmp_path: Path, model: Path, four_rows: Path) -> None:
    run = make_run(tmp_path / "run", model, four_rows, algorithm="ia3", max_steps=1)
    assert train(run, StopSignal()) == DONE
    lines = [event.message for _, event in run.events() if isinstance(event, Log)]
    assert "ia3 makes no use of rank and alpha and dropout." in lines


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"modules_to_save": ["lm_haed"]}, "modules_to_save", "lm_head"),
    ({"rank_pattern": {"q_porj": 4}}, "rank_pattern", "q_proj"),
    ({"rank_pattern": {"q_proj": 4}, "target_modules": ["v_proj"]}, "rank_pattern", "target_modules"),
    ({"alpha_pattern": {"layers.9.mlp": 4}}, "alpha_pattern", "q_proj"),
    ({"layers_to_transform": [2]}, "layers_to_transform", "0 to 1"),
    ({"trainable_tokens": ["the cat sleeps"]}, "trainable_tokens", "single tokens"),
    ({"algorithm": "c3a", "algorithm_options": {"block_size": 24}}, "algorithm_options", "16"),
    ({"algorithm": "adalora", "max_steps": 1}, "num_epochs", "longer"),
    ({"algorithm": "adalora", "algorithm_options": {"init_r": 8}}, "algorithm_options", "above rank"),
    ({"algorithm": "gralora", "rank": 3}, "algorithm", "lora"),
]


@pytest.mark.parametrize(("fields", "field", "hint"), WRONG)
def test_what_cannot_be_is_refused_before_any_weight_is_loaded(
    fields: dict[str, Any], field: str, hint: str, tmp_path: Path, weightless: Path, four_rows: Path
) -> None:
    run = make_run(tmp_path / "run", weightless, four_rows, **fields)
    assert train(run, StopSignal()) == FAILED
    failure = run.read_failure()
    assert failure is not None
    assert failure.code == "INVALID_CONFIG"
    assert failure.details.startswith(f"{field}: ")
    assert hint in failure.details


@pytest.fixture(scope="module")
def weightless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_model(tmp_path_factory.mktemp("weightless"))
    (folder / "model.safetensors").unlink()
    return folder


def test_virtual_tokens_take_their_room_from_the_rows(model: Path) -> None:
    assert read_base(TrainingConfig(base_model=str(model), dataset_path="d"), None).longest(1024, before=20) == 108


@pytest.mark.parametrize("algorithm", [Algorithm.PROMPT_TUNING, Algorithm.PREFIX_TUNING, Algorithm.P_TUNING])
def test_the_loss_behind_virtual_tokens_is_that_of_stock_peft(algorithm: Algorithm, model: Path) -> None:
    config = TrainingConfig(base_model=str(model), dataset_path="d", algorithm=algorithm)
    adapted = built(config)
    short, long = PROMPT[0, :6].numpy(), PROMPT[0].numpy()
    batch = collate([Row(short, short > 40), Row(long, long > 40)])
    mask = torch.ones_like(batch.ids)
    mask[0, 6:] = 0
    theirs = adapted(input_ids=batch.ids, attention_mask=mask, labels=batch.ids.masked_fill(~batch.learn, -100)).loss
    ours = summed_loss(adapted, batch) / batch.learn.sum()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
