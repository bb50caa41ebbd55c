"""Fit: how much memory a job takes of a GPU, and which of the machines on offer have it."""

from collections.abc import Iterable
from math import ceil

from infra.providers.base import Offer
from peft_studio.algorithms import Algorithm, Targets
from peft_studio.config import Optimizer, Precision, TrainingConfig
from peft_studio.gpus import gpu_named
from peft_studio.memory import DENSE_BYTES, KEPT_BYTES, LOGIT_BYTES, RUNTIME, WEIGHT_BYTES
from peft_studio.plan import DatasetFacts, ModelFacts
from peft_studio.row_formats import RowFormat

# Bytes that the optimizer remembers for each number that is trained; the weight and its gradient are 8 more.
STATE_BYTES = {
    Optimizer.ADAMW_8BIT: 2,
    Optimizer.PAGED_ADAMW: 0,
    Optimizer.PAGED_ADAMW_8BIT: 0,
    Optimizer.LION: 4,
    Optimizer.LION_8BIT: 1,
    Optimizer.ADAFACTOR: 1,
    Optimizer.MUON: 4,
    Optimizer.SGD: 4,
}
ADAM_BYTES, TRAINED_BYTES = 8, 8
PLAIN_KEPT, DORA_KEPT = KEPT_BYTES[Algorithm.LORA], KEPT_BYTES[Algorithm.DORA]
SIDES_A_WIDTH = 16  # rows and columns of a block's linear layers over the model's width: 16 in GPT-2, 19 in Llama 2
_SEVERAL = 3  # machines that an error names


def needed_gb(config: TrainingConfig, model: ModelFacts, dataset: DatasetFacts, gpus: int = 1) -> float | None:
    """
    Estimate the GB (of 10^9 bytes) that training takes of each of some GPUs; None where the model's sizes are unknown.

    The sum of: linear layers in their quantization and all other weights in the number format, divided among the GPUs
    with ``shard_base``; of what is trained the weight, its gradient (float32) and the optimizer's state; what autograd
    keeps for ``batch_size`` rows of ``max_length`` tokens, with ``gradient_checkpointing`` that of one block and the
    inputs of all; the logits of ``loss_chunk_tokens`` tokens; 1 GB for CUDA and libraries.

    The bytes kept a token were measured on the trainer's own forward pass of Llama models on a CPU, and are within 10 %
    there (``tests/unit/test_memory.py``, ``test_fit.py``); no GPU has been measured. Rows are mostly shorter than
    ``max_length``, so that less is needed; architectures with dropout of their own (GPT-2) keep up to twice as much.
    """
    if model.linear_parameters is None or model.linear_sides is None:
        return None
    wide = 2 if config.precision is Precision.FLOAT32 else 1
    total = _weights(config, model, wide) / (gpus if config.shard_base else 1)
    total += _trained(config, model, model.linear_sides)
    tokens = tokens_at_once(config, model, dataset)
    total += tokens * _kept(config, model, model.linear_sides) * wide
    if config.aim.writes:
        total += min(config.loss_chunk_tokens or tokens, tokens) * (model.vocabulary or 0) * LOGIT_BYTES
    return ceil((total + RUNTIME) / 1e8) / 10


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


def _weights(config: TrainingConfig, model: ModelFacts, wide: int) -> float:
    linear = model.linear_parameters or 0
    quantization = config.effective_quantization
    a_weight = WEIGHT_BYTES[quantization] * (wide if quantization.value == "none" else 1)
    copies = DENSE_BYTES[Algorithm.DORA] if _has_magnitudes(config) else 0
    return linear * (a_weight + copies) + (model.parameters - linear) * 2 * wide


def _trained(config: TrainingConfig, model: ModelFacts, sides: int) -> float:
    """Bytes for all that is trained; the layers that are adapted may be fewer, which little depends on."""
    ranks = [config.rank, *config.rank_pattern.values()] if "rank" in config.method.takes else [1]
    numbers = max(ranks) * sides if config.method.targets is Targets.LINEAR else sides
    if config.modules_to_save:
        numbers += model.parameters - (model.linear_parameters or 0)
    return numbers * (TRAINED_BYTES + STATE_BYTES.get(config.optimizer, ADAM_BYTES))


def _kept(config: TrainingConfig, model: ModelFacts, sides: int) -> float:
    """Bytes that autograd keeps of a token, with weights in bfloat16."""
    kept = sides * (DORA_KEPT if _has_magnitudes(config) else PLAIN_KEPT)
    if not config.gradient_checkpointing or model.layers is None:
        return kept
    return kept / model.layers + 2 * sides / SIDES_A_WIDTH


def _has_magnitudes(config: TrainingConfig) -> bool:
    return config.use_dora or bool(config.method.fixed.get("use_dora"))
