"""What a source of models does."""

from typing import Protocol

from peft_studio.algorithm_table import METHODS
from peft_studio.algorithms import Algorithm, Quantization
from peft_studio.catalog import FoundModel, HardwareRequirements, Memory, ModelDetails
from peft_studio.compatibility import compatible_algorithms
from peft_studio.config import ModelSource
from peft_studio.errors import NotFound, ResourceUnavailable
from peft_studio.memory import LEAST_TOKENS, USUAL_TOKENS, plain_job, training_gb
from peft_studio.plan import ModelFacts


class ModelHub(Protocol):
    """A source; both of its questions raise ``ResourceUnavailable`` where it does not answer."""

    async def search(self, query: str, limit: int) -> list[FoundModel]:
        """Return models that match, the best first; the more are asked for, the more follow, in the same order."""
        ...

    async def details(self, model_id: str, revision: str | None) -> ModelDetails:
        """Look at one model; raises ``NotFound``."""
        ...


def unavailable(source: ModelSource, status: int, retry_after: int | None) -> ResourceUnavailable:
    """Return the error for an answer of no use; a source that asks to wait is not the studio's own limit."""
    wait = {} if retry_after is None else {"retry_after_seconds": retry_after}
    if status == 429:
        return ResourceUnavailable(f"{source} is asked too often at the moment (429).", **wait)
    return ResourceUnavailable(f"{source} answered {status}; try again later.", **wait)


def gigabytes(size: float) -> float:
    """Return bytes as GB, to four digits however small."""
    return float(f"{size / 1e9:.4g}")


def no_model(source: ModelSource, model_id: str, hint: str = "") -> NotFound:
    """Return the error for a model that is not there."""
    return NotFound(
        f"{source} has no model {model_id[:200]!r}{hint}.", field="model_id", source=source, model_id=model_id[:200]
    )


def trainable(model: FoundModel, facts: ModelFacts, **known: object) -> ModelDetails:
    """Add to a found model what its files say, and what follows for training on it."""
    return ModelDetails.model_validate(
        {
            **model.model_dump(),
            "revision": facts.revision,
            "description": f"{facts.architecture} with {facts.parameters:,} parameters",
            "architecture": facts.architecture,
            "parameters": facts.parameters,
            "context_length": facts.context_length,
            "has_chat_template": facts.has_chat_template,
            "license": model.license or facts.license,
            "hardware_requirements": _hardware(facts),
            "compatible_algorithms": compatible_algorithms(facts),
            "target_modules": facts.linear_modules,
            **known,
        }
    )


def _hardware(facts: ModelFacts) -> HardwareRequirements | None:
    """Say what each way to train takes: every algorithm that goes on the model, in every quantization it can have."""
    ways = [
        Memory(algorithm=algorithm, quantization=quantization, min_gb=least, recommended_gb=usual)
        for algorithm in compatible_algorithms(facts)
        for quantization in METHODS[algorithm].quantizations
        if (least := _gigabytes(facts, algorithm, quantization, LEAST_TOKENS)) is not None
        and (usual := _gigabytes(facts, algorithm, quantization, USUAL_TOKENS)) is not None
    ]
    plain = _gigabytes(facts, Algorithm.LORA, Quantization.NONE, USUAL_TOKENS)
    if not ways or plain is None:
        return None
    return HardwareRequirements(min_vram_gb=min(way.min_gb for way in ways), recommended_vram_gb=plain, vram=ways)


def _gigabytes(facts: ModelFacts, algorithm: Algorithm, quantization: Quantization, tokens: int) -> float | None:
    return training_gb(plain_job(facts.id, algorithm, quantization), facts, tokens)
