"""Planning: refuse what cannot work, pin down what a job stands on, and say how many steps and minutes it takes."""

import hashlib
import json
from collections.abc import Collection
from math import ceil
from pathlib import Path
from typing import Any

from infra.planning import capabilities
from infra.planning.deployable import check_deployment, check_engine
from infra.planning.estimates import Work, local_seconds, tokens_of
from infra.planning.facts import Facts
from infra.planning.fit import needed_gb
from infra.planning.machine_choice import Market, check_wishes, choose
from infra.platforms import usable
from infra.providers.slugs import count_in
from infra.registries.check import check_registries
from infra.reward_functions import check_columns, check_rewards
from infra.settings import Settings
from infra.trackers import libraries
from infra.trackers.destinations import needs_account, tracker_of
from peft_studio import datasets
from peft_studio.base_models import check_names
from peft_studio.compatibility import check_algorithm
from peft_studio.config import Precision, Quantization, TrainingConfig
from peft_studio.errors import InvalidConfig
from peft_studio.grpo import iterations_of
from peft_studio.machine import Capabilities
from peft_studio.placement import Placement
from peft_studio.plan import DatasetFacts, ModelFacts, Plan
from peft_studio.platforms import Feature
from peft_studio.promotion_rules import check_gate
from peft_studio.serve_targets import planned_conversion
from peft_studio.trainer import TRAINER_VERSION

# The studio's own folders of the data directory, where no adapter may be put.
RESERVED = frozenset(
    ("runs", "results", "logs", "postgres", "prefect", "secrets", "hub-files", "datasets", "uploads", "tokens")
) | {"coordinating", "evaluations", "exports", "publishing", "trackers", "tensorboard", "trackio"}
# What does not change the adapter that is trained; model and data set stand in the key by their content.
NOT_IN_KEY = {
    "model_source",
    "model_revision",
    "dataset_path",
    *Placement.model_fields,
    "experiment_tracker",
    "tracking",
    "project_name",
    "metadata",
    "output_dir",
    "deploy",
    "serve_target",
    "test_prompt",
    "force",
    "checkpoint_steps",
    "num_processes",
    "shard_base",
}
# Lists of which neither order nor repetition matters.
IN_ANY_ORDER = ("target_modules", "modules_to_save", "layers_to_transform", "trainable_tokens")


def platforms_of(config: TrainingConfig) -> frozenset[str]:
    """Return the platforms that a job needs to be connected, which are to be looked up before it is planned."""
    return usable.outside(config.provider, config.experiment_tracker, *(one.platform for one in config.registries))


def rented_from(config: TrainingConfig) -> str | None:
    """Return the provider that a job's machine is rented from, by its own name; None where it is this machine."""
    return next(iter(usable.outside(config.provider)), None)


def gpus_wanted(config: TrainingConfig) -> int:
    """Return how many GPUs a job's machine must have, as far as the job says so."""
    return max(config.num_processes or 1, count_in(config.wanted_resource or ""))


def make_plan(
    config: TrainingConfig,
    settings: Settings,
    connected: Collection[str] = (),
    market: Market | None = None,
    facts: Facts | None = None,
) -> Plan:
    """
    Check everything that can be checked without training, cheapest first; the first thing wrong is raised.

    ``connected`` are those of ``platforms_of(config)`` that are; ``market`` is what is on offer, which a job on a
    rented machine needs; ``facts`` is what was found out for other jobs. Reads the data set from end to end and may
    ask a hub about the model: run it in a thread.
    """
    facts = facts or Facts(settings)
    _check_platform(config, connected)
    _check_tracker(config, settings, connected)
    _check_output_dir(config, settings)
    check_registries(config.registries, connected)
    check_deployment(config)
    provider, market, machine = rented_from(config), market or Market(), None
    check_rewards(config, settings, rented=provider is not None)
    if provider:
        check_wishes(market, provider, config.wanted_resource, config.spot)
    elif machine := capabilities.load(settings):
        _check_machine(config, machine)
    model = facts.model(config)
    check_names(config, model)
    check_algorithm(config, model)
    check_engine(config, model, settings)
    _check_length(config, model)
    conversion = planned_conversion(config, model)
    dataset = facts.dataset(config)
    check_columns(config, dataset.path)
    _check_content(config, dataset)
    check_gate(config, dataset)
    train, _ = datasets.split_rows(dataset.rows, config.validation_split, config.seed)
    steps = total_steps(config, len(train))
    epochs = steps / _steps_per_epoch(config, len(train)) * len(train) / dataset.rows
    work = Work(config, model, dataset, tokens_of(config, dataset, epochs))
    return Plan(
        config=config,
        model=model,
        dataset=dataset,
        cache_key=cache_key(config, model, dataset),
        total_steps=steps,
        tokens=work.tokens,
        needed_vram_gb=needed_gb(config, model, dataset),
        conversion=conversion,
        **(_on_rented(work, market, provider) if provider else _here(work, machine)),
    )


def work_of(plan: Plan) -> Work:
    """Return what decides how long a planned job takes."""
    return Work(plan.config, plan.model, plan.dataset, plan.tokens or tokens_of(plan.config, plan.dataset, 1))


def total_steps(config: TrainingConfig, train_rows: int) -> int:
    """Count the optimizer steps: an epoch's last batch and last step may be smaller, but are taken."""
    steps = _steps_per_epoch(config, train_rows) * config.num_epochs
    return steps if config.max_steps is None else min(steps, config.max_steps)


def cache_key(config: TrainingConfig, model: ModelFacts, dataset: DatasetFacts) -> str:
    """Hash all that decides which adapter is trained: content of model and data, settings, the trainer's version."""
    content = {
        "trainer": TRAINER_VERSION,
        "model": model.revision,
        "dataset": dataset.sha256,
        # Defaults left out, so that a field that a new version adds makes no difference.
        **config.model_dump(mode="json", exclude=NOT_IN_KEY, exclude_defaults=True),
        "quantization": config.effective_quantization,
        **{name: sorted(set(getattr(config, name) or [])) for name in IN_ANY_ORDER},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _here(work: Work, machine: Capabilities | None) -> dict[str, Any]:
    """What is known of a job on this machine, whose speed was measured or is not known."""
    minutes = round(local_seconds(work, machine.gflops(work.config.precision)) / 60, 2) if machine else None
    return {"estimated_cost": 0.0, "estimated_duration_minutes": minutes}


def _on_rented(work: Work, market: Market, provider: str) -> dict[str, Any]:
    chosen, best = choose(work, market, provider)
    expected = chosen.estimate
    return {
        "estimated_cost": expected.cost.expected if expected else None,
        "estimated_duration_minutes": expected.minutes.expected if expected else None,
        "estimate": expected,
        "offers": best,
    }


def _steps_per_epoch(config: TrainingConfig, train_rows: int) -> int:
    return ceil(ceil(train_rows / config.batch_size) / config.gradient_accumulation_steps) * iterations_of(config.grpo)


def _check_content(config: TrainingConfig, dataset: DatasetFacts) -> None:
    if config.dataset_sha256 not in (None, dataset.sha256):
        raise InvalidConfig.of(
            "dataset_path",
            f"the data in {config.dataset_path!r} have changed: their SHA-256 is {dataset.sha256}, not "
            f"{config.dataset_sha256}; bring back what was there, or leave dataset_sha256 out",
        )


def _check_platform(config: TrainingConfig, connected: Collection[str]) -> None:
    if issue := usable.unknown(config.provider, Feature.TRAINING):
        raise InvalidConfig.of("provider", issue)
    usable.check(config.provider, Feature.TRAINING, connected, "provider")
    if rented_from(config):
        return
    if config.wanted_resource not in (None, "local"):
        raise InvalidConfig.of(
            "resource_id", f"this machine has no resource {config.resource_id!r}; use 'local', or leave the field out"
        )
    if config.spot:
        raise InvalidConfig.of("spot", "this machine costs nothing and is not taken away; leave the field out")


def _check_tracker(config: TrainingConfig, settings: Settings, connected: Collection[str]) -> None:
    if config.experiment_tracker is None:
        return
    if issue := usable.unknown(config.experiment_tracker, Feature.EXPERIMENTS):
        raise InvalidConfig.of("experiment_tracker", f"{issue}, or leave the field out")
    if issue := libraries.missing(config, settings):
        raise InvalidConfig.of("experiment_tracker", issue)
    offline = config.tracking.mode == "offline"
    if offline and tracker_of(config) != "wandb":
        raise InvalidConfig.of("tracking.mode", "only wandb has files for a later sync; use online")
    if not offline and needs_account(config):
        usable.check(config.experiment_tracker, Feature.EXPERIMENTS, connected, "experiment_tracker")


def _check_output_dir(config: TrainingConfig, settings: Settings) -> None:
    if config.output_dir is None:
        return
    home = settings.data_dir.resolve()
    try:
        target = (home / config.output_dir).resolve()
        existing = next(place for place in (target, *target.parents) if place.exists())
    except (OSError, ValueError, RuntimeError):  # of a name that is too long, say
        raise InvalidConfig.of("output_dir", f"{config.output_dir[:200]!r} is not a path") from None
    if ".." in Path(config.output_dir).parts or target == home or not target.is_relative_to(home):
        raise InvalidConfig.of(
            "output_dir", f"{config.output_dir!r} is not inside the studio's data directory; name a folder in it"
        )
    top = target.relative_to(home).parts[0]
    if top in RESERVED or top.startswith("."):
        raise InvalidConfig.of("output_dir", f"{top!r} is a folder of the studio's own; name another")
    if not existing.is_dir():
        raise InvalidConfig.of("output_dir", f"{config.output_dir!r} leads through a file; name a folder")


def _check_machine(config: TrainingConfig, machine: Capabilities) -> None:
    quantization = config.effective_quantization
    if quantization is not Quantization.NONE:
        reason = machine.quantizations.get(quantization, "never tried")
        if reason is not None:
            raise InvalidConfig.of(
                "quantization", f"{quantization} does not work on this machine ({reason}); use none with lora"
            )
    if config.precision is Precision.BFLOAT16 and machine.bf16_gflops is None:
        raise InvalidConfig.of("precision", "bfloat16 does not work on this machine; use float32")
    if config.num_processes and config.num_processes > machine.most_processes:
        what = "GPU" if machine.gpus else "core"
        raise InvalidConfig.of(
            "num_processes", f"this machine has {machine.most_processes} {what}(s); give at most as many"
        )


def _check_length(config: TrainingConfig, model: ModelFacts) -> None:
    # The default gives way to a small model by itself (the trainer cuts); only a wish is refused.
    if "max_length" not in config.model_fields_set:
        return
    if model.context_length is not None and config.max_length > model.context_length:
        raise InvalidConfig.of(
            "max_length",
            f"{config.max_length} is more than the {model.context_length} tokens {model.id!r} has room for",
        )
