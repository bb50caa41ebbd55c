"""How much GPU memory it takes to train an adapter on a base model: one formula, for the catalogue and for plans."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from peft_studio.adapter_size import Adapted
from peft_studio.algorithm_table import METHODS
from peft_studio.algorithms import Algorithm, Quantization, Targets
from peft_studio.config import Optimizer, Precision, TrainingConfig
from peft_studio.plan import ModelFacts

# One short row, and a batch of TrainingConfig's defaults: four rows of 1024 tokens.
LEAST_TOKENS, USUAL_TOKENS = 512, 4 * 1024
# Bytes a weight of a linear layer takes; NF4 with double quantization has 0.127 bits of constants (QLoRA, section 3).
WEIGHT_BYTES = {
    Quantization.NONE: 2.0,
    Quantization.INT8: 1.0,
    Quantization.INT4: (4 + 0.127) / 8,
    Quantization.FP8: 1.0,
    Quantization.INT8_WEIGHT_ONLY: 1.0,
}
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
LOGIT_BYTES = 14  # bfloat16, float32, its log-softmax, their gradients
RUNTIME = 1_000_000_000
SIDES_A_WIDTH = 16  # rows and columns of a block's linear layers over the model's width: 16 in GPT-2, 19 in Llama 2


@dataclass(frozen=True)
class Kept:
    """
    Bytes that autograd keeps for the backward pass, with weights in bfloat16.

    ``side``: of each token, row and column of the linear layers. The others whatever the number of tokens: ``weight``
    of each weight that is adapted, where the change is put together as a matrix; ``square`` of each two inputs of a
    layer, where it is turned, once or for every rank (``squares_a_rank``); ``number`` of each number that is trained.
    """

    side: float
    weight: float = 0
    square: float = 0
    squares_a_rank: float = 0
    number: float = 2


_LORA, _DORA = Kept(4.3), Kept(6.5, weight=4)
KEPT: Mapping[Algorithm, Kept] = {
    Algorithm.LORA: _LORA,
    Algorithm.QLORA: _LORA,
    Algorithm.DORA: _DORA,
    Algorithm.RSLORA: _LORA,
    Algorithm.PISSA: _LORA,
    Algorithm.OLORA: _LORA,
    Algorithm.LOFTQ: _LORA,
    Algorithm.LORA_PLUS: _LORA,
    Algorithm.ADALORA: Kept(5.4),
    Algorithm.DELORA: Kept(3.5),
    Algorithm.GRALORA: Kept(4.3),
    Algorithm.RANDLORA: Kept(4.1, weight=3.1),
    Algorithm.TINYLORA: Kept(2.6),
    Algorithm.UNILORA: Kept(4.3),
    Algorithm.VBLORA: Kept(4.3, number=1.3),
    Algorithm.VERA: Kept(4.5),
    Algorithm.PVERA: Kept(4.7),
    Algorithm.LOHA: Kept(2.2, weight=2, number=0),
    Algorithm.LOKR: Kept(2.6, weight=2),
    Algorithm.HIRA: Kept(4.3, weight=2),
    Algorithm.LILY: Kept(2.6, number=4),
    Algorithm.MISS: Kept(3.4),
    Algorithm.BONE: Kept(2.6, weight=4, number=0),
    Algorithm.PEANUT: Kept(2.2, weight=4),
    Algorithm.GLORA: Kept(2.2, weight=2),
    Algorithm.OFT: Kept(2.6, number=29),
    Algorithm.BOFT: Kept(3.3, weight=0.3, square=6),
    Algorithm.HRA: Kept(2.2, weight=2, square=2, squares_a_rank=2),
    Algorithm.PSOFT: Kept(3.4),
    Algorithm.ROAD: Kept(5.9, number=24),
    Algorithm.IA3: Kept(3.3, number=4),
    Algorithm.BEFT: Kept(1.7, number=0),
    Algorithm.LN_TUNING: Kept(1.9, number=0),
    Algorithm.C3A: Kept(3.4, number=0),
    Algorithm.FOURIERFT: Kept(2.6, weight=2, number=16),
    Algorithm.WAVEFT: Kept(2.2, weight=4, number=17),
    Algorithm.SHIRA: Kept(2.2, weight=2, number=20),
    Algorithm.SUPERTUNING: Kept(2.2, weight=2, number=8),
    Algorithm.DEFT: Kept(5.4, number=6.4),
    Algorithm.PROMPT_TUNING: Kept(1.7, number=0),
    Algorithm.PREFIX_TUNING: Kept(1.9, number=1),
    Algorithm.P_TUNING: Kept(1.7, number=0),
    Algorithm.TRAINABLE_TOKENS: Kept(1.7, number=0),
}


def plain_job(base_model: str, algorithm: Algorithm, quantization: Quantization) -> TrainingConfig:
    """Return a job that leaves everything but the algorithm at its default; of tokens, it trains one."""
    named = {"trainable_tokens": ["token"]} if METHODS[algorithm].targets is Targets.TOKENS else {}
    settings = {"algorithm": algorithm, "quantization": quantization, "dataset_path": "rows.jsonl", **named}
    return TrainingConfig.model_validate({"base_model": base_model, **settings})


def training_gb(config: TrainingConfig, model: ModelFacts, tokens: int, gpus: int = 1) -> float | None:
    """
    Estimate the GB (of 10^9 bytes) that training takes of each of some GPUs with so many tokens at once.

    The sum of: linear layers in their quantization and all other weights in the number format, divided among the GPUs
    with ``shard_base``; of what is trained (``adapter_size``) the weight, its gradient (float32) and the optimizer's
    state; what the adapter holds beside that; what autograd keeps for the tokens (``Kept``), with
    ``gradient_checkpointing`` that of one block and the inputs of all; the logits of ``loss_chunk_tokens`` tokens; 1 GB
    for CUDA and libraries. None where the model's sizes are unknown.

    What is kept was measured on the trainer's own forward pass of unquantized Llama models in bfloat16 on a CPU, and is
    within 10 % a token there (``tests/unit/test_memory.py``); no GPU has been measured. Rows are mostly shorter than
    ``max_length``, so that less is needed; architectures with dropout of their own (GPT-2) keep up to twice as much.
    """
    if not model.linear_layers or model.linear_parameters is None or model.linear_sides is None:
        return None
    wide = 2 if config.precision is Precision.FLOAT32 else 1
    adapted = Adapted(config, model)
    total = _weights(config, model, wide) / (gpus if config.shard_base else 1)
    total += _trained(adapted) + adapted.held_bytes
    total += kept_bytes(adapted, tokens) * wide
    if config.aim.writes:
        total += min(config.loss_chunk_tokens or tokens, tokens) * (model.vocabulary or 0) * LOGIT_BYTES
    return ceil((total + RUNTIME) / 1e8) / 10


def _weights(config: TrainingConfig, model: ModelFacts, wide: int) -> float:
    linear = model.linear_parameters or 0
    quantization = config.effective_quantization
    a_weight = WEIGHT_BYTES[quantization] * (wide if quantization is Quantization.NONE else 1)
    return linear * a_weight + (model.parameters - linear) * 2 * wide


def _trained(adapted: Adapted) -> float:
    """Bytes for all that is trained."""
    config, model = adapted.config, adapted.model
    numbers = adapted.trained
    if config.modules_to_save:
        numbers += model.parameters - (model.linear_parameters or 0)
    return numbers * (TRAINED_BYTES + STATE_BYTES.get(config.optimizer, ADAM_BYTES))


def kept_bytes(adapted: Adapted, tokens: int) -> float:
    """Estimate what autograd keeps of a pass over so many tokens, besides all parameters, with weights in bfloat16."""
    config, model = adapted.config, adapted.model
    sides = model.linear_sides or 0
    row = _DORA if config.use_dora else KEPT[config.algorithm]
    square = row.square + row.squares_a_rank * config.rank
    of_layers = sum(
        layer.count * (row.weight * layer.rows * layer.columns + square * layer.columns**2) for layer in adapted.layers
    )
    kept = tokens * row.side * sides + of_layers + row.number * adapted.trained
    if not config.gradient_checkpointing or model.layers is None:
        return kept
    return kept / model.layers + tokens * 2 * sides / SIDES_A_WIDTH
