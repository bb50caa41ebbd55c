"""How an adapter can be parametrised: the names, and what a row of the table of algorithms says about one of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Algorithm(StrEnum):
    """How the adapter is parametrised."""

    LORA = "lora"
    QLORA = "qlora"
    DORA = "dora"
    RSLORA = "rslora"
    PISSA = "pissa"
    OLORA = "olora"
    LOFTQ = "loftq"
    LORA_PLUS = "lora_plus"
    ADALORA = "adalora"
    DELORA = "delora"
    GRALORA = "gralora"
    RANDLORA = "randlora"
    TINYLORA = "tinylora"
    UNILORA = "unilora"
    VBLORA = "vblora"
    VERA = "vera"
    PVERA = "pvera"
    LOHA = "loha"
    LOKR = "lokr"
    HIRA = "hira"
    LILY = "lily"
    MISS = "miss"
    BONE = "bone"
    PEANUT = "peanut"
    GLORA = "glora"
    OFT = "oft"
    BOFT = "boft"
    HRA = "hra"
    PSOFT = "psoft"
    ROAD = "road"
    IA3 = "ia3"
    BEFT = "beft"
    LN_TUNING = "ln_tuning"
    C3A = "c3a"
    FOURIERFT = "fourierft"
    WAVEFT = "waveft"
    SHIRA = "shira"
    SUPERTUNING = "supertuning"
    DEFT = "deft"
    PROMPT_TUNING = "prompt_tuning"
    PREFIX_TUNING = "prefix_tuning"
    P_TUNING = "p_tuning"
    TRAINABLE_TOKENS = "trainable_tokens"


class Quantization(StrEnum):
    """How the frozen base model's weights are held in memory."""

    NONE = "none"
    INT8 = "int8"  # by bitsandbytes: activations are rounded, too
    INT4 = "int4"  # by bitsandbytes: NF4
    FP8 = "fp8"  # these two by torchao
    INT8_WEIGHT_ONLY = "int8_weight_only"

    @property
    def divides(self) -> bool:
        """Whether weights that are held like this can be divided among processes."""
        return self in (Quantization.NONE, Quantization.INT4)


class Targets(StrEnum):
    """What of the base model an algorithm changes where nothing else is asked for."""

    LINEAR = "linear"  # all linear layers but the output head
    NORMS = "norms"  # the normalisation layers
    TOKENS = "tokens"  # some rows of the token embedding
    PROMPT = "prompt"  # none of it: tokens that are no words stand before every text


@dataclass(frozen=True)
class Option:
    """A setting of one algorithm alone; without a default of ours PEFT's is in force."""

    kind: type[bool] | type[int] | type[float] | type[str]
    least: float | None = None
    most: float | None = None
    default: bool | int | float | str | None = None
    choices: tuple[str, ...] = ()
    ours: bool = False  # not passed on to PEFT

    def wrong(self, value: object) -> str | None:
        """Say what is wrong with a value, as the end of a sentence; None where nothing is."""
        number = self.kind is float and isinstance(value, int) and not isinstance(value, bool)
        if type(value) is not self.kind and not number:
            return f"must be {_KINDS[self.kind]}"
        if self.choices and value not in self.choices:
            return f"must be one of {', '.join(self.choices)}"
        if isinstance(value, int | float):
            if self.least is not None and value < self.least:
                return f"must be at least {self.least:g}"
            if self.most is not None and value > self.most:
                return f"must be at most {self.most:g}"
        return None


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def require_known(owner: str, known: Mapping[str, Option], options: dict[str, Any]) -> dict[str, Any]:
    """Return the options; raises ``ValueError`` where one is unknown or has a wrong value."""
    for name, value in options.items():
        if name not in known:
            has = f"its options are {', '.join(known)}" if known else "it has none"
            raise ValueError(f"{owner} has no option {name[:50]!r}; {has}")
        if wrong := known[name].wrong(value):
            raise ValueError(f"{name} {wrong}")
    return options


@dataclass(frozen=True)
class Method:
    """One row: how PEFT is asked for this algorithm, and what may be asked of it."""

    peft: str  # the name of PEFT's configuration class
    takes: Mapping[str, str]  # a field of the job -> what PEFT calls it
    fixed: Mapping[str, Any] = field(default_factory=dict[str, Any])
    options: Mapping[str, Option] = field(default_factory=dict[str, Option])
    targets: Targets = Targets.LINEAR
    # The first is the default. What torchao rounds takes LoRA alone.
    quantizations: tuple[Quantization, ...] = (Quantization.NONE, Quantization.INT8, Quantization.INT4)
    blocks: str | None = None  # the option that has to divide the sizes of all adapted layers
    moves_base: bool = False  # starts by taking its factors out of the base model; stored as plain LoRA
    served: bool = False  # by the local endpoint

    def __post_init__(self) -> None:
        assert self.blocks is None or self.blocks in self.options
