"""How much GPU memory it takes to train an adapter on a base model."""

from math import ceil

from peft_studio.algorithms import Algorithm, Quantization
from peft_studio.plan import ModelFacts

RANK = 8  # TrainingConfig's default, as are four rows of 1024 tokens
LEAST_TOKENS, USUAL_TOKENS = 512, 4 * 1024
# Bytes a weight of a linear layer takes; NF4 with double quantization has 0.127 bits of constants (QLoRA, section 3).
WEIGHT_BYTES = {Quantization.NONE: 2.0, Quantization.INT8: 1.0, Quantization.INT4: (4 + 0.127) / 8}
HALF, ADAPTER_BYTES, LOGIT_BYTES = 2, 16, 14
KEPT_BYTES = {Algorithm.LORA: 4.3, Algorithm.QLORA: 4.3, Algorithm.DORA: 6.5}
DENSE_BYTES = {Algorithm.DORA: 4}
RUNTIME = 1_000_000_000


def vram_gb(facts: ModelFacts, algorithm: Algorithm, quantization: Quantization, tokens: int) -> float | None:
    """
    Estimate the GB (of 10^9 bytes) of GPU memory that a batch of ``tokens`` tokens takes; None where sizes are unknown.

    The sum of: the linear layers' weights in their quantization, all others in bfloat16; 16 bytes for each of the
    adapter's parameters, rank x (rows + columns) of every linear layer, in float32 with gradient and Adam's two
    moments; what autograd keeps of the layers for the backward pass, a number of bytes for each row and column and
    token (measured on the trainer's own forward pass of Llama models in bfloat16 on scaled-dot-product attention, no
    checkpointing of activations: 4.3 for LoRA, 6.5 for DoRA, which besides keeps a float32 copy of the weights);
    14 bytes a logit of every token (bfloat16, float32, its log-softmax, their gradients); 1 GB for CUDA and libraries.
    Architectures with dropout of their own, such as GPT-2, keep about twice as much a token.
    """
    if facts.linear_parameters is None or facts.linear_sides is None or facts.vocabulary is None:
        return None
    weights = facts.linear_parameters * (WEIGHT_BYTES[quantization] + DENSE_BYTES.get(algorithm, 0))
    others = (facts.parameters - facts.linear_parameters) * HALF
    adapter = RANK * facts.linear_sides * ADAPTER_BYTES
    kept = tokens * (facts.linear_sides * KEPT_BYTES[algorithm] + facts.vocabulary * LOGIT_BYTES)
    return ceil((weights + others + adapter + kept + RUNTIME) / 1e8) / 10
