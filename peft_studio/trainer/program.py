"""
The trainer's page: configuration, data, model, adapter, fit, save.

``run`` is the whole program without a command line, for processes that have torch loaded already.
"""

import hashlib
import os
from typing import Any

import torch
from pydantic import ValidationError

from peft_studio.config import Quantization, TrainingConfig
from peft_studio.errors import InvalidConfig
from peft_studio.oom_ladder import layout_of
from peft_studio.plan import Plan
from peft_studio.run_dir import RunDir
from peft_studio.trainer import TRAINER_VERSION
from peft_studio.trainer.adapter import adapter_config, add_adapter, unused_fields
from peft_studio.trainer.checkpoint import Checkpoints
from peft_studio.trainer.data import Encoded
from peft_studio.trainer.fit import Training
from peft_studio.trainer.kernels import use_kernels
from peft_studio.trainer.launch import launch, processes_for
from peft_studio.trainer.layers import require_names, skeleton
from peft_studio.trainer.memory import compute_again, require_checkpointing
from peft_studio.trainer.model import Base, device, load_base, read_base
from peft_studio.trainer.objectives import criterion_of
from peft_studio.trainer.optimizer import require_optimizer
from peft_studio.trainer.outcome import attempt, ending
from peft_studio.trainer.plain_lora import starting_factors
from peft_studio.trainer.prepare import prepare
from peft_studio.trainer.probes import probe_notes
from peft_studio.trainer.process_group import ProcessGroup, is_member
from peft_studio.trainer.products import fast_products
from peft_studio.trainer.quantization import require_quantization
from peft_studio.trainer.reference import ask_base
from peft_studio.trainer.report import Reporter
from peft_studio.trainer.save import save_adapter, summarize
from peft_studio.trainer.schedule import Schedule
from peft_studio.trainer.sharding import shard_base
from peft_studio.trainer.stop import StopSignal


def run(run: RunDir, stop: StopSignal) -> int:
    """Train the run directory's adapter, or go on with it; return the exit code (see ``outcome``)."""
    if is_member():
        return ending(run, lambda: _train_together(run, stop), is_member=True)
    return attempt(run, stop, lambda: _train_alone_or_launch(run, stop))


def _train_alone_or_launch(run: RunDir, stop: StopSignal) -> None:
    if run.adapter.is_dir() and run.read_summary() is not None:
        return
    config, _ = read_job(run)
    if (count := processes_for(config)) > 1:
        launch(run, count, stop)
    else:
        train(run, ProcessGroup(), stop)


def _train_together(run: RunDir, stop: StopSignal) -> None:
    group = ProcessGroup.join()
    train(run, group, stop)
    group.leave()


def train(run: RunDir, group: ProcessGroup, stop: StopSignal) -> None:
    """Leave adapter/ and summary.json in the run directory; raises what ``outcome`` knows."""
    report = Reporter(run, speaks=group.leads)
    report.log("Starting training..." if group.is_alone else f"Starting training in {group.size} processes...")
    if threads := os.environ.get("PEFT_STUDIO_THREADS"):
        torch.set_num_threads(int(threads))
    wanted, plan = read_job(run)
    config = layout_of(run, wanted).applied_to(wanted)
    require_quantization(config, device())
    require_optimizer(config, device())
    base = read_base(config, plan)
    with fast_products(config.fast_kernels, width=base.width):
        _train(run, wanted, config, plan, base, group, stop, report)


def _train(
    run: RunDir,
    wanted: TrainingConfig,
    config: TrainingConfig,
    plan: Plan | None,
    base: Base,
    group: ProcessGroup,
    stop: StopSignal,
    report: Reporter,
) -> None:
    shape = skeleton(base.config, config.aim.head)
    require_names(shape, config)
    require_checkpointing(shape, config)
    if unused := unused_fields(config):
        report.log(f"{config.algorithm} makes no use of {' and '.join(unused)}.")
    criterion = criterion_of(config, base)
    if config.dropout and not config.aim.dropout:
        report.log(f"Dropout is off: {config.objective} compares likelihoods.")
    with group.leader_first():
        rows, held_out = prepare(config, plan, base, criterion, report)
    group.check(stop)
    schedule, made_for = Schedule.of(config, len(rows.rows)), purpose(wanted, rows)
    settings = adapter_config(config, base, shape, schedule.total)
    shards = config.shard_base and not group.is_alone
    on_host = shards and config.effective_quantization is Quantization.NONE
    bare = load_base(base, config, "host" if on_host else "device")
    use_kernels(bare, config, report.log)
    if criterion.needs_reference:
        with group.leader_first():
            rows, held_out = ask_base(
                run, bare, criterion, (rows, held_out), schedule, made_for, report, group.between(stop)
            )
    model = add_adapter(bare, settings, base, config)
    if config.gradient_checkpointing:
        compute_again(model)
    start = starting_factors(model) if config.method.moves_base else None
    if shards:
        shard_base(model, group)
    group.check(stop)

    checkpoints = Checkpoints(run, made_for, report, writes=group.leads)
    training = Training(model, rows.rows, held_out.rows, criterion, config, checkpoints, report, stop, group)
    progress = training.run()
    if not group.leads:
        return
    notes = criterion.notes | probe_notes(model, base, config, plan, is_moved=start is not None, is_sharded=shards)
    save_adapter(run, model, base.tokenizer, start, notes)
    run.write("summary.json", summarize(progress, model, rows, held_out, training.epochs))
    report.log(f"Training finished: {progress.step} steps, loss {progress.loss:.3f}")


def read_job(run: RunDir) -> tuple[TrainingConfig, Plan | None]:
    """Read what is to be done; raises ``InvalidConfig`` where it cannot be understood."""
    try:
        return run.read_config(), run.read("plan.json", Plan)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidConfig(
            "The run directory's config.json or plan.json cannot be understood.",
            field=".".join(map(str, first["loc"])),
            issue=first["msg"],
        ) from error


def purpose(config: TrainingConfig, rows: Encoded[Any]) -> str:
    """What a checkpoint has to be made for to be of use: this configuration and these tokens."""
    # Defaults left out, so that a field that a new version adds makes no difference.
    settings = config.model_dump_json(exclude={"num_processes", "shard_base"}, exclude_defaults=True)
    return hashlib.sha256((TRAINER_VERSION + settings + rows.fingerprint()).encode()).hexdigest()
