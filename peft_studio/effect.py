"""The effect test: whether an adapter, where it is served, does what it did at the end of its training."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

PROBES = "probes.json"  # in the adapter's folder; never handed out with it: it holds rows of the data set
PROBE_TOKENS = 8
TOP = 5
_PARTED = 1.0  # nats that at least lie between two answers where one goes on with what the other holds for unlikely
_NO_EFFECT = 0.01  # nats: the same weights in batches of other shapes differ by less
_NO_SHARE = 0.1  # of the effect at the end of training
_TOLERANCE = 0.15
_TOLERANCE_QUANTIZED = 0.5


class Verdict(StrEnum):
    """What came of an effect test."""

    EFFECTIVE = "effective"
    NO_EFFECT = "no_effect"
    DIVERGED = "diverged"


class EffectTest(BaseModel):
    """What an adapter was found to do where it is served; all differences are in nats, means over tokens."""

    model_config = ConfigDict(frozen=True)

    verdict: Verdict | None = Field(description="Null where nothing could be compared.")
    reason: str = Field(description="What the verdict rests on.")
    effect: float | None = Field(default=None, description="How far the adapter's answers are from the base model's.")
    deviation: float | None = Field(default=None, description="How far they are from those at the end of training.")
    tolerance: float | None = Field(default=None, description="How far they may be from those.")


class Said(BaseModel):
    """
    A greedy answer, token by token: their texts, their log-probabilities, and the likeliest tokens at each place.

    The token that ends an answer is not among them. Where only the text is known, ``tokens`` are pieces of it and
    nothing else is there.
    """

    tokens: list[str] = []
    logprobs: list[float] = []
    top: list[dict[str, float]] = []

    @property
    def text(self) -> str:
        """The answer, without blanks around it: platforms differ in those."""
        return "".join(self.tokens).strip()

    @property
    def is_text_alone(self) -> bool:
        """Whether nothing is known of its tokens."""
        return len(self.logprobs) < len(self.tokens)


class Probe(BaseModel):
    """One question as the trainer put it, and what was answered at the end of training."""

    messages: list[dict[str, Any]] | None = Field(default=None, description="Where it goes through a chat template.")
    text: str = Field(description="The question, laid out for the model.")
    ids: list[int] = Field(description="The question's tokens.")
    adapter: Said
    base: Said | None = Field(default=None, description="None where training changed the base model's weights, too.")


class Probes(BaseModel):
    """``probes.json``: what an adapter is held to."""

    model_config = ConfigDict(extra="ignore")

    quantized: bool = Field(description="Whether the base model was quantized in training; it is served as it is.")
    probes: list[Probe]

    @property
    def tolerance(self) -> float:
        """
        How far log-probabilities may be off, in nats, as a mean over tokens.

        Training and serving may compute in bfloat16, which keeps 8 bits: of logits of about 20 that is an error of
        0.08 each. What is quantized to 4 bits in training is off by a few tenths; a wrong template, model or
        adapter by one to many nats.
        """
        return _TOLERANCE_QUANTIZED if self.quantized else _TOLERANCE


class Served(BaseModel):
    """
    What the endpoint says to one probe: by the question's tokens where it takes those, and as users ask (``asked``).

    ``base`` is None where the base model cannot be asked there.
    """

    base: Said | None
    adapter: Said
    asked: Said


def gaps(one: Said, other: Said) -> list[float]:
    """
    Return how far the log-probabilities of ``one``'s tokens are from ``other``'s, in nats, token by token.

    They are compared as far as both stand behind the same tokens: up to the first place where the answers part,
    included. Two likeliest tokens that are nearly as likely may change places without being far apart. Of texts alone
    no more is known than whether they are the same, and where they part.
    """
    if one.is_text_alone or other.is_text_alone:
        return _gaps_of_texts(one, other)
    found: list[float] = []
    for i, token in enumerate(one.tokens):
        if i == len(other.tokens):
            return [*found, _PARTED]
        if other.tokens[i] == token:
            found.append(abs(one.logprobs[i] - other.logprobs[i]))
            continue
        likely = other.top[i]
        if token in likely:
            return [*found, abs(one.logprobs[i] - likely[token])]
        return [*found, max(_PARTED, one.logprobs[i] - min(likely.values(), default=0.0))]
    return [*found, _PARTED] if len(other.tokens) > len(one.tokens) else found


def _gaps_of_texts(one: Said, other: Said) -> list[float]:
    """Go along ``one``'s tokens while ``other`` says the same; with a tie it may go on as one of the likely tokens."""
    if one.is_text_alone:
        return [0.0 if one.text == other.text else _PARTED]
    found, rest = list[float](), "".join(other.tokens).lstrip()
    for i, token in enumerate(one.tokens):
        said = token if found else token.lstrip()
        if rest.startswith(said) or (i == len(one.tokens) - 1 and rest == said.rstrip()):
            found.append(0.0)
            rest = rest[len(said) :]
            continue
        likely = [
            value for name, value in one.top[i].items() if name.strip() and rest.lstrip().startswith(name.strip())
        ]
        return [*found, one.logprobs[i] - max(likely) if likely else _PARTED]
    return [*found, _PARTED] if rest.strip() else found


def distance(ones: Sequence[Said], others: Sequence[Said]) -> float:
    """Return the mean of ``gaps`` over several answers, to four places; 0 where nothing was said."""
    found = [gap for one, other in zip(ones, others, strict=True) for gap in gaps(one, other)]
    return round(sum(found) / len(found), 4) if found else 0.0


def judge_alone(adapter: Sequence[Said], base: Sequence[Said] | None) -> EffectTest:
    """Judge an adapter of whose training nothing is known: only that it does something can be seen."""
    if base is None:
        reason = "The base model cannot be asked there, and no probes of the adapter's training are stored."
        return EffectTest(verdict=None, reason=reason)
    effect = distance(adapter, base)
    if effect <= _NO_EFFECT:
        return EffectTest(
            verdict=Verdict.NO_EFFECT, reason="The endpoint answers as the base model does.", effect=effect
        )
    return EffectTest(
        verdict=Verdict.EFFECTIVE,
        reason="The endpoint answers otherwise than the base model; no probes of its training are stored to compare.",
        effect=effect,
    )


def judge(known: Probes, served: Sequence[Served]) -> EffectTest:
    """Judge an adapter by the probes of its training; what is wrong first is what is named."""
    tolerance, probes = known.tolerance, known.probes
    # Where the base model cannot be asked, it is taken to say what it said in training.
    unchanged = [one.base or probe.base for probe, one in zip(probes, served, strict=True)]
    compared = [(one.adapter, base) for one, base in zip(served, unchanged, strict=True) if base is not None]
    effect = distance([adapter for adapter, _ in compared], [base for _, base in compared]) if compared else None
    asked = zip(probes, served, strict=True)
    bases = [(probe.base, one.base) for probe, one in asked if probe.base is not None and one.base is not None]
    trained = distance([probe.adapter for probe in probes], [probe.base or probe.adapter for probe in probes])
    in_base = distance([before for before, _ in bases], [now for _, now in bases])
    in_adapter = distance([probe.adapter for probe in probes], [one.adapter for one in served])
    as_asked = distance([probe.adapter for probe in probes], [one.asked for one in served])

    laid_out = distance([one.adapter for one in served], [one.asked for one in served])

    def found(verdict: Verdict, reason: str, deviation: float) -> EffectTest:
        return EffectTest(verdict=verdict, reason=reason, effect=effect, deviation=deviation, tolerance=tolerance)

    if in_base > tolerance:
        reason = "The base model answers otherwise than the one that was trained on: is it another revision?"
        return found(Verdict.DIVERGED, reason, in_base)
    if effect is not None and effect <= max(_NO_EFFECT, _NO_SHARE * trained):
        little = trained <= _NO_EFFECT and any(probe.base for probe in probes)
        reason = (
            "The adapter changes nothing: it did not at the end of its training."
            if little
            else "The endpoint answers as the base model does: the adapter is ignored."
        )
        return found(Verdict.NO_EFFECT, reason, in_adapter)
    if as_asked > tolerance and laid_out > tolerance:  # by the question's tokens the same adapter says something else
        reason = "Prompts are laid out otherwise than in training: is it another chat template or tokenizer?"
        return found(Verdict.DIVERGED, reason, as_asked)
    if max(in_adapter, as_asked) > tolerance:
        reason = "The adapter answers otherwise than at the end of its training."
        return found(Verdict.DIVERGED, reason, max(in_adapter, as_asked))
    return found(Verdict.EFFECTIVE, "The adapter answers as at the end of its training.", max(in_adapter, as_asked))
