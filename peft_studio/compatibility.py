"""
Which algorithms go on which base model, told from its facts alone, before anything is loaded.

What is refused here was tried: every algorithm of the table on small models of two dozen architectures, by PEFT itself;
``tests/unit/trainer/test_compatibility.py`` tries again those that differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from peft_studio.algorithm_table import METHODS
from peft_studio.algorithms import Algorithm, Targets
from peft_studio.config import TrainingConfig
from peft_studio.errors import InvalidConfig
from peft_studio.model_shapes import TRANSPOSED
from peft_studio.plan import ModelFacts


@dataclass(frozen=True)
class Rule:
    """
    Algorithms that do not go on some architectures, by the beginnings of their names.

    ``of_one_layer`` is a layer that they do not go on: where the job names others, they do.
    """

    architectures: tuple[str, ...]
    algorithms: frozenset[Algorithm]
    reason: str
    of_one_layer: str | None = None


def _configured_by(*names: str) -> frozenset[Algorithm]:
    return frozenset(algorithm for algorithm, method in METHODS.items() if method.peft in names)


_MAMBA = ("MambaFor", "Mamba2For", "FalconMambaFor")
RULES: Sequence[Rule] = (
    # PEFT's OLoRA takes them, but its factors come out the wrong way round.
    Rule(
        TRANSPOSED,
        frozenset(
            (
                *(Algorithm.OLORA, Algorithm.DELORA, Algorithm.LOHA, Algorithm.LOKR, Algorithm.LILY, Algorithm.MISS),
                *(Algorithm.BONE, Algorithm.PEANUT, Algorithm.GLORA, Algorithm.OFT, Algorithm.BOFT, Algorithm.HRA),
                *(Algorithm.PSOFT, Algorithm.ROAD, Algorithm.BEFT, Algorithm.C3A, Algorithm.WAVEFT, Algorithm.SHIRA),
                Algorithm.SUPERTUNING,
            )
        ),
        "its layers hold their weights transposed",
    ),
    Rule(("FalconFor",), frozenset((Algorithm.GLORA,)), "its layers are of a kind of their own"),
    Rule(("FalconFor",), frozenset((Algorithm.PREFIX_TUNING,)), "its cache holds one head, where a prefix has all"),
    Rule(_MAMBA, frozenset((Algorithm.PREFIX_TUNING,)), "it has no attention that a prefix could be put before"),
    # PEFT, tuners_utils._check_lora_target_modules_mamba: its kernels read these weights past any adapter.
    Rule(
        (*_MAMBA, "FalconH1", "NemotronH"),
        _configured_by("LoraConfig", "AdaLoraConfig", "RandLoraConfig"),
        "its kernels read 'out_proj' past any adapter",
        "out_proj",
    ),
    Rule(
        ("MptFor", "MPTFor"),
        frozenset(algorithm for algorithm, method in METHODS.items() if method.targets is Targets.PROMPT),
        "PEFT does not find the number of its heads",
    ),
    Rule(
        ("Qwen2Moe",),
        frozenset((Algorithm.GRALORA, Algorithm.BONE, Algorithm.PSOFT, Algorithm.ROAD, Algorithm.SHIRA)),
        "its 'shared_expert_gate' has a single output",
        "shared_expert_gate",
    ),
)
# Coefficients that these learn of each layer unless n_frequency says otherwise (PEFT's defaults): at most its weights.
FREQUENCIES: Mapping[Algorithm, int] = {Algorithm.FOURIERFT: 1000, Algorithm.WAVEFT: 2592}


def compatible_algorithms(facts: ModelFacts) -> list[Algorithm]:
    """Return the algorithms that go on a model with their defaults, in the table's order."""
    return [algorithm for algorithm in METHODS if why_not(algorithm, facts) is None]


def why_not(
    algorithm: Algorithm, facts: ModelFacts, layers: Sequence[str] | None = None, frequencies: int | None = None
) -> str | None:
    """
    Say why an algorithm does not go on a model; None where it does, or where its facts do not tell.

    ``layers`` are the layers to adapt, by default all linear ones; ``frequencies`` are an ``n_frequency``.
    """
    for rule in RULES:
        if algorithm in rule.algorithms and facts.architecture.startswith(rule.architectures):
            if rule.of_one_layer is None:
                return f"{algorithm} does not go on a {facts.architecture}: {rule.reason}"
            if layers is None or rule.of_one_layer in layers:
                others = [name for name in facts.linear_modules if name != rule.of_one_layer]
                return (
                    f"{algorithm} does not go on all layers of a {facts.architecture}: {rule.reason}; set "
                    f"target_modules to others ({', '.join(others[:10])})"
                )
    wanted = frequencies or FREQUENCIES.get(algorithm, 0)
    # Of layers that are named the facts do not tell the sizes.
    if algorithm in FREQUENCIES and layers is None and facts.smallest_linear and wanted > facts.smallest_linear:
        return (
            f"{algorithm} learns {wanted} coefficients of each layer, and {facts.id!r} has one of "
            f"{facts.smallest_linear} weights; give algorithm_options a smaller n_frequency"
        )
    return None


def check_algorithm(config: TrainingConfig, facts: ModelFacts) -> None:
    """Raise ``InvalidConfig`` where the configuration's algorithm does not go on the layers that it is to adapt."""
    frequencies = config.algorithm_options.get("n_frequency")
    issue = why_not(config.algorithm, facts, config.target_modules, int(frequencies) if frequencies else None)
    if issue:
        raise InvalidConfig.of("algorithm", issue)
