"""Ids and model names as OpenAI's clients send them, and what they stand for here: arithmetic, no lookup."""

from peft_studio.config import ModelSource
from peft_studio.errors import InvalidConfig, JobNotFound, NotFound
from peft_studio.jobs import PREFIX as JOB
from peft_studio.jobs import flow_run_id_of
from peft_studio.stored_datasets import PREFIX as DATASET
from peft_studio.stored_datasets import is_dataset_id

FILE, FINE_TUNING_JOB, EVENT, CHECKPOINT = "file-", "ftjob-", "ftevent-", "ftckpt-"


def file_id_of(dataset_id: str) -> str:
    """Return the file id of a data set of the store; a path or a hub's data set is its own name."""
    return FILE + dataset_id.removeprefix(DATASET) if is_dataset_id(dataset_id) else dataset_id


def dataset_id_of(file_id: str, field: str = "file_id") -> str:
    """Return the data set that a file id stands for; raises ``NotFound`` for what is no file's id."""
    dataset_id = DATASET + file_id.removeprefix(FILE)
    if not file_id.startswith(FILE) or not is_dataset_id(dataset_id):
        raise NotFound(f"No such File object: {file_id[:100]}", field=field)
    return dataset_id


def fine_tuning_id_of(job_id: str) -> str:
    """Return the fine-tuning job's id of a job."""
    return FINE_TUNING_JOB + job_id.removeprefix(JOB)


def job_id_of(fine_tuning_id: str, field: str = "fine_tuning_job_id") -> str:
    """Return the job that a fine-tuning job's id stands for; raises ``JobNotFound`` for what is no such id."""
    job_id = JOB + fine_tuning_id.removeprefix(FINE_TUNING_JOB)
    try:
        if not fine_tuning_id.startswith(FINE_TUNING_JOB):
            raise JobNotFound()
        flow_run_id_of(job_id)
    except JobNotFound:
        raise JobNotFound(f"Could not find fine tune: {fine_tuning_id[:100]}", field=field) from None
    return job_id


def numbered(prefix: str, job_id: str, number: int) -> str:
    """Return the id of a job's event or checkpoint."""
    return f"{prefix}{job_id.removeprefix(JOB)}-{number}"


def number_of(prefix: str, job_id: str, numbered_id: str) -> int:
    """Return the number in such an id; raises ``InvalidConfig`` for anything else."""
    number = numbered_id.removeprefix(numbered(prefix, job_id, 0)[:-1])
    if not (number.isascii() and number.isdigit() and len(number) <= 18):
        raise InvalidConfig("after: this is not an id of this list.", field="after", issue="Send one you received")
    return int(number)


def source_of(model: str) -> tuple[ModelSource, str]:
    """Tell a model's source: ``SOURCE:ID``, as in ``local:demo/model``; by default it is the Hugging Face Hub's."""
    source, colon, model_id = model.partition(":")
    if colon and source in list(ModelSource):
        return ModelSource(source), model_id
    return ModelSource.HUGGINGFACE, model


def model_of(source: ModelSource, base_model: str) -> str:
    """Name a base model as ``source_of`` reads it."""
    return base_model if source is ModelSource.HUGGINGFACE else f"{source}:{base_model}"
