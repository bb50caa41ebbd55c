"""Fit: how much memory a job takes of a GPU, and which of the machines on offer have it."""

from collections.abc import Iterable

from infra.providers.base import Offer
from peft_studio.config import TrainingConfig
from peft_studio.gpus import gpu_named
from peft_studio.memory import training_gb
from peft_studio.plan import DatasetFacts, ModelFacts
from peft_studio.row_formats import RowFormat

_SEVERAL = 3  # machines that an error names


def needed_gb(config: TrainingConfig, model: ModelFacts, dataset: DatasetFacts, gpus: int = 1) -> float | None:
    """Estimate the GB that training takes of each of some GPUs (``memory.training_gb``); None where that is unknown."""
    return training_gb(config, model, tokens_at_once(config, model, dataset), gpus)


def tokens_at_once(config: TrainingConfig, model: ModelFacts, dataset: DatasetFacts) -> int:
    """Return the most tokens that one pass can hold: full rows, as many as there are at once or in the data set."""
    longest = config.max_length + (config.grpo.max_completion_length if config.grpo else 0)
    length = min(longest, model.context_length or longest) + config.virtual_tokens
    answers = 2 if dataset.format in (RowFormat.PREFERENCE, RowFormat.PAIRS) else 1
    return min(config.batch_size, dataset.rows) * length * answers


def memory_gb(offer: Offer) -> float | None:
    """Return the memory of one of an offer's GPUs, by the vendor's word or else the maker's; None where unknown."""
    rated = gpu_named(offer.gpu_type)
    return offer.vram_gb or (rated.memory_gb if rated else None)


def has_room(offer: Offer, config: TrainingConfig, model: ModelFacts, dataset: DatasetFacts) -> bool | None:
    """Tell whether a job fits on a machine; None where that is not known."""
    needed, memory = needed_gb(config, model, dataset, _processes(offer, config)), memory_gb(offer)
    return None if needed is None or memory is None else needed <= memory


def cheapest_that_fit(
    offers: Iterable[Offer], config: TrainingConfig, model: ModelFacts, dataset: DatasetFacts
) -> list[str]:
    """Name the kinds of machine on which a job fits for certain, those of the lowest price an hour first."""
    fitting = [offer for offer in offers if offer.available and has_room(offer, config, model, dataset)]
    ordered = sorted(fitting, key=lambda offer: offer.hourly_rate)
    return list(dict.fromkeys(offer.resource_id for offer in ordered))[:_SEVERAL]


def _processes(offer: Offer, config: TrainingConfig) -> int:
    return min(config.num_processes or offer.gpu_count, max(1, offer.gpu_count))
