"""What an evaluation stands on: looked up and checked before anybody is told that there will be one."""

from pathlib import Path

from infra.adapters.bases import usable_base
from infra.adapters.uploaded import UploadedAdapters
from infra.evaluations.judge import address_of
from infra.planning.facts import Facts
from infra.settings import Settings
from peft_studio.adapters import Adapter
from peft_studio.config import Algorithm, ModelSource, TrainingConfig
from peft_studio.errors import InvalidConfig, ResourceUnavailable
from peft_studio.evaluation.comparison import GENERATED
from peft_studio.evaluations import EvaluationTask, EvaluationWanted
from peft_studio.objectives import AIMS
from peft_studio.plan import DatasetFacts, ModelFacts
from peft_studio.trainer.harness import require_harness

# What of a job decides how rows are read and losses computed; the rest would only be a reason to refuse it.
_OF_THE_JOB = (
    *("columns", "objective", "objective_options", "algorithm", "algorithm_options", "quantization", "precision"),
    *("batch_size", "max_length", "long_rows", "loss_chunk_tokens", "seed", "validation_split", "grpo", "test_prompt"),
    *("trainable_tokens", "packing"),
)


def plan_evaluation(
    adapter: Adapter, wanted: EvaluationWanted, uploads: UploadedAdapters, settings: Settings
) -> EvaluationTask:
    """
    Put together all that an evaluation needs; reads the data set from end to end: call it in a thread.

    Raises ``InvalidConfig`` with the field that cannot be honoured.
    """
    wanted = _check(adapter, wanted, settings)
    model = usable_base(adapter, uploads, settings)
    lineage = adapter.lineage
    if wanted.dataset is None and lineage is None:
        raise _refused("dataset", "the adapter was uploaded, and nobody knows what it was not trained on; name rows")
    path = wanted.dataset or (lineage.dataset.path if lineage else "")
    config = _config(adapter, model, path)
    facts = _facts(config, settings)
    held_out, notes = False, list[str]()
    if lineage and facts.sha256 == lineage.dataset.sha256:
        held_out = config.validation_split > 0
        notes.append(
            "It was trained on this data set: only the rows are used that its job held out."
            if held_out
            else "It was trained on all of these rows, so the figures say nothing about others."
        )
    elif wanted.dataset is None:
        raise _refused("dataset", "the data that its job held rows out of have changed; name others")
    elif config.aim.labels:
        raise _refused("dataset", f"an adapter for {config.objective} knows the labels of its own data; leave it out")
    config = config.model_copy(update={"dataset_path": facts.path})
    return EvaluationTask(
        wanted=wanted,
        adapter=str(Path(adapter.path).parent),
        config=config,
        held_out=held_out,
        dataset_sha256=facts.sha256,
        notes=notes,
    )


def _facts(config: TrainingConfig, settings: Settings) -> DatasetFacts:
    """Look through the data set; what is wrong with it is told of the field by which it was named."""
    try:
        return Facts(settings).dataset(config)
    except (InvalidConfig, ResourceUnavailable) as error:
        message = error.message.replace("dataset_path", "dataset", 1)
        raise type(error)(message, **{**error.details, "field": "dataset"}) from error


def _check(adapter: Adapter, wanted: EvaluationWanted, settings: Settings) -> EvaluationWanted:
    """Refuse what cannot be measured; return what is wanted, with no answers written where nobody looks at them."""
    writes = AIMS[adapter.objective].writes
    generated = [measure for measure in wanted.measures or () if measure in GENERATED]
    if not writes and (generated or wanted.judge or wanted.lm_eval):
        field = "measures" if generated else "judge" if wanted.judge else "lm_eval"
        raise _refused(field, f"an adapter that was trained for {adapter.objective} writes no text")
    if wanted.generation_rows == 0 and (generated or wanted.judge):
        raise _refused("generation_rows", "answers have to be written for that; have at least one row answered")
    if wanted.judge:
        address_of(wanted.judge, settings)
    if wanted.lm_eval:
        require_harness()
    if wanted.measures and not generated and not wanted.judge:
        return wanted.model_copy(update={"generation_rows": 0})
    return wanted


def _config(adapter: Adapter, model: ModelFacts, dataset: str) -> TrainingConfig:
    """Describe how the adapter reads rows: as its job did, or as a job of supervised fine-tuning would."""
    given = adapter.lineage.config.model_dump(mode="json", include=set(_OF_THE_JOB)) if adapter.lineage else {}
    if not adapter.lineage:
        given = {"objective": adapter.objective, "algorithm": Algorithm.LORA}  # which kind it is, its own files say
    return TrainingConfig.model_validate(
        {
            **{name: value for name, value in given.items() if value is not None},
            "base_model": model.path or model.id,
            "model_source": ModelSource.LOCAL if model.path else ModelSource.HUGGINGFACE,
            "model_revision": None if model.path else model.revision,
            "dataset_path": dataset,
        }
    )


def _refused(field: str, issue: str) -> InvalidConfig:
    return InvalidConfig.of(field, issue)
