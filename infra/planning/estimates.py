"""Estimates: how long a job takes on a machine and what that costs, with a range; pure arithmetic."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from infra.planning.fit import has_room
from infra.planning.measured_speeds import Kind, MeasuredJob
from infra.providers.base import Offer
from peft_studio.config import TrainingConfig
from peft_studio.gpus import gpu_named
from peft_studio.plan import DatasetFacts, Estimate, ModelFacts, Range

CHARACTERS_PER_TOKEN = 4
FLOPS_PER_PARAMETER_AND_TOKEN = 4
AGAIN_FLOPS = 2  # a forward pass once more, with gradient checkpointing
EFFICIENCY = 0.5  # of the rate that was measured in products of matrices
OVERHEAD_SECONDS = 10
# What training reaches of the rate in a data sheet: at most, usually, and with small models and batches.
RATED_EFFICIENCY = (0.6, 0.35, 0.08)
EACH_FURTHER_GPU = 0.85
IMAGE_BYTES = 4e9  # the trainer's image, packed
BYTES_A_PARAMETER = 2  # in a hub's files
BYTES_A_SECOND = (400e6, 100e6, 25e6)  # from hubs and registries
BOOT_FACTORS = (0.5, 1.0, 3.0)
START_SECONDS = (10.0, 30.0, 90.0)  # from the image to the first step, and from the last one to giving it back


@dataclass(frozen=True)
class Work:
    """A job, as far as its length depends on it."""

    config: TrainingConfig
    model: ModelFacts
    dataset: DatasetFacts
    tokens: int

    @property
    def flops(self) -> float:
        """Operations of all training steps: two a parameter and token forwards, two backwards."""
        return _operations(self.tokens, self.model.parameters, self.config.gradient_checkpointing)


@dataclass(frozen=True)
class Priced:
    """An offer, and what the job would take there; None where nobody knows how fast it is."""

    offer: Offer
    estimate: Estimate | None


def tokens_of(config: TrainingConfig, dataset: DatasetFacts, epochs: float) -> int:
    """
    Estimate the tokens that are trained on: a quarter of the characters, at most ``max_length`` a row.

    Of answers that are drawn, at most all: each prompt so often, with the longest answer each time.
    """
    once = min(dataset.characters / CHARACTERS_PER_TOKEN, dataset.rows * config.max_length)
    if config.grpo:
        answers = config.grpo.num_generations * config.grpo.num_iterations
        once = answers * (once + dataset.rows * config.grpo.max_completion_length)
    return math.ceil(once * epochs)


def local_seconds(work: Work, rate: float) -> float:
    """
    Estimate training time at a rate in GFLOP/s that was measured: operations / (rate x 0.5) + 10 s.

    A frozen base model costs two FLOPs a parameter and token forwards and two backwards; half of the rate of matrix
    products is what training reaches.
    """
    return OVERHEAD_SECONDS + work.flops / (rate * 1e9 * EFFICIENCY)


def estimate(work: Work, offer: Offer, measured: Sequence[MeasuredJob] = ()) -> Estimate | None:
    """
    Say what a job takes on a machine, from renting it to giving it back; None where nobody knows its speed.

    Training steps: operations over the GPU's rated speed times what training reaches of it; each further GPU counts
    0.85. The rest: the vendor's usual boot, the trainer's image and the base model over a line of 100 MB/s, 30 s of
    starts. Low and high are the same with the best and the worst that was assumed for each. Finished jobs on such
    machines (``measured``) correct both parts by their actual over their predicted times: n of them weigh n / (n + 1),
    what was assumed weighs the rest, and the range's ratios are raised to 1 / sqrt(n + 1). Costs are begun increments.
    """
    training = _training(work, offer, measured)
    if training is None:
        return None
    other = _corrected(_other(work.model.parameters, offer), [_slower(job, offer) for job in measured])
    parts = [training[i] + other[i] for i in range(3)]
    costs = [cost(offer, seconds) for seconds in parts]
    minutes = [round(seconds / 60, 2) for seconds in parts]
    return Estimate(cost=_range(costs, 4), minutes=_range(minutes, 2), measured_jobs=len(measured))


def cost(offer: Offer, seconds: float) -> float:
    """Return what so many seconds of a machine cost: every increment that is begun, and no less than the minimum."""
    increments = math.ceil(seconds / offer.billing_increment)
    return max(offer.minimum_charge, increments * offer.billing_increment * offer.hourly_rate / 3600)


def rank(work: Work, offers: Iterable[Offer], measured: Mapping[Kind, Sequence[MeasuredJob]]) -> list[Priced]:
    """
    Return the offers a job can take, that on which it costs least to finish first.

    Those are left out that are sold out, of another price model (``spot``), too small, of too few GPUs, or beyond
    ``max_cost`` or ``max_duration`` even at the low estimate. Where nothing is known of a machine it stands behind
    those of which it is, by its price an hour. The provider and ``resource_id`` are not looked at.
    """
    config = work.config
    found: list[Priced] = []
    for offer in offers:
        is_wanted = offer.available and offer.spot == config.spot and (config.num_processes or 1) <= offer.gpu_count
        if not is_wanted or has_room(offer, config, work.model, work.dataset) is False:
            continue
        priced = Priced(offer, estimate(work, offer, measured.get((offer.provider, offer.resource_id), ())))
        if is_within_limits(config, priced.estimate):
            found.append(priced)
    return sorted(found, key=lambda priced: _order(work, priced))


def is_within_limits(config: TrainingConfig, expected: Estimate | None) -> bool:
    """Whether a job may be done in its limits of money and time; what is unknown may."""
    if expected is None:
        return True
    return expected.cost.low <= (config.max_cost or math.inf) and expected.minutes.low <= (
        config.max_duration or math.inf
    )


def _order(work: Work, priced: Priced) -> tuple[bool, float, float]:
    offer, expected = priced.offer, priced.estimate
    is_unsure = expected is None or has_room(offer, work.config, work.model, work.dataset) is None
    return is_unsure, expected.cost.expected if expected else math.inf, offer.hourly_rate


def _training(work: Work, offer: Offer, measured: Sequence[MeasuredJob]) -> list[float] | None:
    """Seconds of training steps: low, expected, high."""
    gpus = max(1, min(work.config.num_processes or offer.gpu_count, offer.gpu_count))
    if rated := gpu_named(offer.gpu_type):
        rate = rated.gflops(work.config.precision) * 1e9 * (1 + EACH_FURTHER_GPU * (gpus - 1))
        usual = [work.flops / (rate * efficiency) for efficiency in RATED_EFFICIENCY]
        ratios = [job.training_seconds / (_operations_of(job) / (rate * RATED_EFFICIENCY[1])) for job in measured]
        return _corrected(usual, ratios)
    if not measured:
        return None
    # Of a GPU whose rating is not known the first job tells the speed.
    first = _operations_of(measured[0]) / measured[0].training_seconds
    usual = [work.flops / first * factor for factor in (0.5, 1.0, 2.0)]
    return _corrected(usual, [job.training_seconds / (_operations_of(job) / first) for job in measured])


def _operations(tokens: int, parameters: int, checkpointing: bool) -> float:
    return float(tokens) * parameters * (FLOPS_PER_PARAMETER_AND_TOKEN + AGAIN_FLOPS * checkpointing)


def _operations_of(job: MeasuredJob) -> float:
    return _operations(job.tokens, job.parameters, job.gradient_checkpointing)


def _other(parameters: int, offer: Offer) -> list[float]:
    """Seconds before the first step and after the last: low, expected, high."""
    loaded = IMAGE_BYTES + parameters * BYTES_A_PARAMETER
    return [offer.boot_seconds * BOOT_FACTORS[i] + loaded / BYTES_A_SECOND[i] + START_SECONDS[i] for i in range(3)]


def _slower(job: MeasuredJob, offer: Offer) -> float:
    return max(job.other_seconds, 1.0) / _other(job.parameters, offer)[1]


def _corrected(usual: Sequence[float], ratios: Sequence[float]) -> list[float]:
    """Move a range by what others have taken over what was expected of them, and narrow it."""
    low, expected, high = usual
    count = len(ratios)
    moved = expected * math.exp(sum(map(math.log, ratios)) / (count + 1))
    narrower = 1 / math.sqrt(count + 1)
    return [moved * (low / expected) ** narrower, moved, moved * (high / expected) ** narrower]


def _range(values: Sequence[float], digits: int) -> Range:
    low, expected, high = (round(value, digits) for value in values)
    return Range(low=low, expected=expected, high=high)
