"""
How large an adapter is before it is made: the numbers that it trains, and what it holds fixed beside them.

Told from the shapes of the layers alone, by the formulas that PEFT's own layers follow; no torch here.
``tests/unit/trainer/test_adapter_size.py`` counts both on adapters that PEFT has made.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from peft_studio.algorithms import Algorithm, Targets
from peft_studio.compatibility import FREQUENCIES
from peft_studio.config import TrainingConfig
from peft_studio.plan import LinearLayers, ModelFacts

# Layers that end a block's feed-forward part, as they are called where PEFT does not know the architecture.
FEED_FORWARD = ("down_proj", "fc2", "fc_out", "dense_4h_to_h", "w2")
_FLOAT, _PLACE, _INDEX = 4, 4, 8  # bytes of a number, of a short index and of a long one
_THETA, _VECTORS, _TINY = 256, 256, 64  # PEFT's defaults of theta_d_length, num_vectors and u


@dataclass(frozen=True)
class Adapted:
    """
    A model's layers, as far as a configuration adapts them.

    Where ``target_modules`` or ``rank_pattern`` name single layers, all that are called the same count with them.
    """

    config: TrainingConfig
    model: ModelFacts

    @cached_property
    def layers(self) -> list[LinearLayers]:
        """The linear layers that the algorithm goes on."""
        config, model = self.config, self.model
        if config.method.targets is not Targets.LINEAR:
            return []
        names = config.target_modules and {name.rsplit(".", 1)[-1] for name in config.target_modules}
        found = [layer for layer in model.linear_layers if not names or layer.name in names]
        if not config.layers_to_transform or not model.layers:
            return found
        share = len(config.layers_to_transform) / model.layers
        return [layer.model_copy(update={"count": math.ceil(layer.count * share)}) for layer in found]

    @cached_property
    def block(self) -> int:
        """The size of blocks that the trainer takes: the largest up to the one asked for that divides all sides."""
        most = int(self.config.option(self.config.method.blocks or ""))
        common = math.gcd(*(side for layer in self.layers for side in (layer.rows, layer.columns)))
        return next(size for size in range(min(most, common), 0, -1) if common % size == 0)

    @property
    def trained(self) -> int:
        """How many numbers are trained."""
        each, once = _EACH.get(self.config.algorithm), _ONCE.get(self.config.algorithm)
        numbers = sum(layer.count * each(self, layer) for layer in self.layers) if each else 0
        numbers += once(self) if once else 0
        return round(numbers) + len(self.config.trainable_tokens or ()) * (self.model.width or 0)

    @property
    def held_bytes(self) -> int:
        """Bytes held beside what is trained: fixed projections and permutations, the places of single numbers."""
        each, once = _HELD.get(self.config.algorithm), _HELD_ONCE.get(self.config.algorithm)
        held = sum(layer.count * each(self, layer) for layer in self.layers) if each else 0
        return round(held + (once(self) if once and self.layers else 0))

    def given(self, option: str, default: float) -> float:
        """Return an option of the algorithm; where neither job nor table says one, PEFT's default."""
        value = self.config.option(option)
        return default if value is None else float(value)

    def rank(self, layer: LinearLayers) -> int:
        """Return the largest rank that layers of this name have."""
        patterns = self.config.rank_pattern.items()
        return max((rank for name, rank in patterns if name.rsplit(".", 1)[-1] == layer.name), default=self.config.rank)

    @property
    def longest(self) -> tuple[int, int]:
        """The most rows and the most columns that a layer has."""
        return max(layer.rows for layer in self.layers), max(layer.columns for layer in self.layers)


def adalora_start(config: TrainingConfig) -> int:
    """Return the ranks that AdaLoRA starts with: half as many again as it ends with, unless it is told."""
    return int(config.option("init_r") or max(config.rank + 1, config.rank * 3 // 2))


def kronecker_factors(side: int, wanted: int = -1) -> tuple[int, int]:
    """Return the factors, the smaller one first, into which LoKr takes a side apart: about equal, or ``wanted``."""
    if wanted > 0 and side % wanted == 0:
        return wanted, side // wanted
    most = math.isqrt(side) if wanted == -1 else min(math.isqrt(side), max(wanted, 1))
    small = next(one for one in range(most, 0, -1) if side % one == 0)
    return small, side // small


def _product(adapted: Adapted, layer: LinearLayers) -> float:
    """Two low-rank factors, and with DoRA the length of each row."""
    has_lengths = adapted.config.use_dora or adapted.config.method.fixed.get("use_dora")
    return adapted.rank(layer) * layer.sides + (layer.rows if has_lengths else 0)


def _randlora(adapted: Adapted, layer: LinearLayers) -> float:
    short = min(layer.rows, layer.columns)
    return math.ceil(short / adapted.config.rank) * (adapted.config.rank + short)


def _randlora_projections(adapted: Adapted) -> float:
    rank, (short, long) = adapted.config.rank, sorted(adapted.longest)
    return _FLOAT * rank * (short + long * math.ceil(short / rank))


def _lokr(adapted: Adapted, layer: LinearLayers) -> float:
    """Two Kronecker factors, each as it is or, where that is less, as a low-rank product."""
    wanted, rank = int(adapted.given("decompose_factor", -1)), adapted.rank(layer)
    rows, columns = kronecker_factors(layer.rows, wanted), kronecker_factors(layer.columns, wanted)
    is_product = [rank < max(sides) / 2 for sides in zip(rows, columns, strict=True)]
    is_product[0] &= bool(adapted.config.option("decompose_both"))
    return sum(
        rank * (high + wide) if product else high * wide
        for product, high, wide in zip(is_product, rows, columns, strict=True)
    )


def _lily(adapted: Adapted) -> float:
    """Factors that layers of the same kind share: the first some of them, the second all."""
    rank, stride, shared = adapted.config.rank, adapted.given("stride_A", 1), adapted.given("num_B", 2)
    return sum(
        rank * (layer.columns * math.ceil(layer.count / stride) + layer.rows * shared) for layer in adapted.layers
    )


def _oft(adapted: Adapted, layer: LinearLayers) -> float:
    blocks = 1 if adapted.config.option("block_share") else layer.columns / adapted.block
    return blocks * adapted.block * (adapted.block - 1) / 2


def _road(adapted: Adapted, layer: LinearLayers) -> float:
    return layer.rows * {"road_2": 2, "road_4": 4}.get(adapted.config.option("variant") or "", 1)


def _coefficients(adapted: Adapted, layer: LinearLayers) -> float:
    return adapted.given("n_frequency", FREQUENCIES[adapted.config.algorithm])


def _supertuning(adapted: Adapted, layer: LinearLayers) -> float:
    return int(layer.rows * layer.columns * (1 - adapted.given("sparsity", 0.99)))


def _tinylora(adapted: Adapted) -> float:
    count = sum(layer.count for layer in adapted.layers)
    return adapted.given("u", _TINY) * max(1, round(count * (1 - adapted.given("weight_tying", 0))))


def _prefix(adapted: Adapted) -> float:
    """Keys and values of every block, or the network that makes them."""
    tokens, width = adapted.config.virtual_tokens, adapted.model.key_width or 0
    all_blocks = 2 * (adapted.model.layers or 0) * width
    if not adapted.config.option("prefix_projection"):
        return tokens * all_blocks
    inner = adapted.given("encoder_hidden_size", adapted.model.width or 0)
    return tokens * width + (width + 1) * inner + (inner + 1) * all_blocks


def _p_tuning(adapted: Adapted) -> float:
    """Embeddings and the network behind them: three linear layers, or an LSTM of two in both directions and two."""
    width = adapted.model.width or 0
    inner = adapted.given("encoder_hidden_size", width)
    embeddings = adapted.config.virtual_tokens * width
    if adapted.config.option("encoder_reparameterization_type") != "LSTM":
        return embeddings + (width + 1) * inner + (inner + 1) * inner + (inner + 1) * width
    lstm = 2 * sum(4 * inner * (given + inner + 2) for given in (width, 2 * inner))
    return embeddings + lstm + (2 * inner + 1) * 2 * inner + (2 * inner + 1) * width


_EachLayer = Mapping[Algorithm, Callable[[Adapted, LinearLayers], float]]
_AllLayers = Mapping[Algorithm, Callable[[Adapted], float]]
_PRODUCTS = (
    *(Algorithm.LORA, Algorithm.QLORA, Algorithm.DORA, Algorithm.RSLORA, Algorithm.PISSA, Algorithm.OLORA),
    *(Algorithm.LOFTQ, Algorithm.LORA_PLUS, Algorithm.HIRA, Algorithm.SHIRA, Algorithm.DEFT),
)
# Numbers that are trained of each layer: rank r, blocks of b, o rows (outputs), i columns (inputs), o + i sides.
_EACH: _EachLayer = {
    **dict.fromkeys(_PRODUCTS, _product),
    Algorithm.ADALORA: lambda adapted, layer: adalora_start(adapted.config) * (layer.sides + 1),
    Algorithm.DELORA: lambda adapted, layer: adapted.rank(layer) * layer.sides + 1,
    Algorithm.GRALORA: lambda adapted, layer: (adapted.config.rank + adapted.given("hybrid_r", 0)) * layer.sides,
    Algorithm.RANDLORA: _randlora,
    Algorithm.VBLORA: lambda adapted, layer: (
        adapted.config.rank * adapted.given("num_vectors", _VECTORS) * layer.sides / adapted.block
    ),
    Algorithm.VERA: lambda adapted, layer: adapted.config.rank + layer.rows,
    Algorithm.PVERA: lambda adapted, layer: 2 * adapted.config.rank + layer.rows,
    Algorithm.LOHA: lambda adapted, layer: 2 * adapted.rank(layer) * layer.sides,
    Algorithm.LOKR: _lokr,
    Algorithm.LILY: lambda adapted, layer: adapted.config.rank * adapted.given("num_B", 2),
    Algorithm.MISS: lambda adapted, layer: adapted.config.rank * layer.rows,
    Algorithm.BONE: lambda adapted, layer: adapted.config.rank * layer.rows,
    Algorithm.PEANUT: lambda adapted, layer: (
        2 * adapted.config.rank * (layer.rows + adapted.given("depth", 0) * adapted.config.rank)
    ),
    Algorithm.GLORA: lambda adapted, layer: 2 * adapted.config.rank * layer.sides,
    Algorithm.OFT: _oft,
    Algorithm.BOFT: lambda adapted, layer: layer.columns * adapted.block + layer.rows,
    Algorithm.HRA: lambda adapted, layer: adapted.config.rank * layer.columns,
    Algorithm.PSOFT: lambda adapted, layer: adapted.config.rank * (adapted.config.rank + 3) / 2,
    Algorithm.ROAD: _road,
    Algorithm.IA3: lambda adapted, layer: layer.columns if layer.name in FEED_FORWARD else layer.rows,
    Algorithm.BEFT: lambda adapted, layer: layer.rows,
    Algorithm.C3A: lambda adapted, layer: layer.rows * layer.columns / adapted.block,
    Algorithm.FOURIERFT: _coefficients,
    Algorithm.WAVEFT: _coefficients,
    Algorithm.SUPERTUNING: _supertuning,
}
# Numbers that are trained once for all layers.
_ONCE: _AllLayers = {
    Algorithm.TINYLORA: _tinylora,
    Algorithm.UNILORA: lambda adapted: adapted.given("theta_d_length", _THETA),
    Algorithm.VBLORA: lambda adapted: adapted.given("num_vectors", _VECTORS) * adapted.block,
    Algorithm.LILY: _lily,
    Algorithm.LN_TUNING: lambda adapted: adapted.model.norm_parameters or 0,
    Algorithm.PROMPT_TUNING: lambda adapted: adapted.config.virtual_tokens * (adapted.model.width or 0),
    Algorithm.PREFIX_TUNING: _prefix,
    Algorithm.P_TUNING: _p_tuning,
}
# Bytes that are held of each layer.
_HELD: _EachLayer = {
    Algorithm.DELORA: lambda adapted, layer: _FLOAT * layer.columns,
    Algorithm.TINYLORA: lambda adapted, layer: (
        _FLOAT * adapted.config.rank * (layer.sides + adapted.given("u", _TINY) * adapted.config.rank)
    ),
    Algorithm.UNILORA: lambda adapted, layer: (_INDEX + _FLOAT) * adapted.config.rank * layer.sides,
    Algorithm.GLORA: lambda adapted, layer: _FLOAT * (layer.sides + layer.rows),
    Algorithm.OFT: lambda adapted, layer: _INDEX * adapted.block * (adapted.block - 1),
    Algorithm.BOFT: lambda adapted, layer: _FLOAT * layer.columns**2,
    Algorithm.PSOFT: lambda adapted, layer: (
        adapted.config.rank * (_FLOAT * layer.sides + _INDEX * (adapted.config.rank - 1))
    ),
    Algorithm.FOURIERFT: lambda adapted, layer: 2 * _INDEX * _coefficients(adapted, layer),
    Algorithm.WAVEFT: lambda adapted, layer: 2 * _INDEX * _coefficients(adapted, layer),
    Algorithm.SHIRA: lambda adapted, layer: 2 * _PLACE * _product(adapted, layer),
    Algorithm.SUPERTUNING: lambda adapted, layer: _PLACE * _supertuning(adapted, layer),
}
# Bytes that are held once for all layers.
_HELD_ONCE: _AllLayers = {
    Algorithm.RANDLORA: _randlora_projections,
    Algorithm.VERA: lambda adapted: _FLOAT * adapted.config.rank * sum(adapted.longest),
    Algorithm.PVERA: lambda adapted: _FLOAT * adapted.config.rank * (adapted.longest[0] + 2 * adapted.longest[1]),
}
