"""What a job takes on a machine: ranges that hold what is expected, costs that are begun increments, a fair ranking."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from infra.planning import measured_speeds
from infra.planning.estimates import Work, cost, estimate, rank
from infra.planning.fit import needed_gb
from infra.planning.machine_choice import Market, check_wishes, choose
from infra.planning.measured_speeds import MeasuredJob
from infra.settings import Settings
from peft_studio.config import Algorithm, Precision, Quantization
from peft_studio.errors import InvalidConfig, ResourceUnavailable
from peft_studio.jobs import TrainingSummary
from peft_studio.machines import MachineReceipt, MachineStatus
from peft_studio.plan import Plan
from tests.rented_jobs import DATA, LLAMA, config, offer

NOW = datetime(2026, 11, 1, tzinfo=UTC)
FITTING = {"quantization": Quantization.INT4, "batch_size": 1}
H100 = offer("gpu-h100", 3.0, gpu_type="NVIDIA H100 80GB HBM3", vram_gb=80)
A100 = offer("gpu-a100", 1.8, gpu_type="A100 SXM4", vram_gb=80)
RTX = offer("gpu-rtx4090", 0.6, gpu_type="RTX 4090", vram_gb=24)
ABACUS = offer("gpu-abacus", 0.01, gpu_type="Abacus", vram_gb=80)


def work(tokens: int = 10_000_000, **changes: Any) -> Work:
    return Work(config(**FITTING | {"provider": "runpod"} | changes), LLAMA, DATA, tokens)


def measured(kind: str = "gpu-h100", *, slower: float = 1.0, number: int = 0) -> MeasuredJob:
    """A job that took so many times what was expected of it on an H100."""
    tokens = 5_000_000
    expected = tokens * LLAMA.parameters * 4 / (989e12 * 0.35)
    return MeasuredJob(
        provider="runpod",
        resource_id=kind,
        job_id=f"job_{number}",
        parameters=LLAMA.parameters,
        tokens=tokens,
        training_seconds=expected * slower,
        other_seconds=235.0 * slower,
    )


@pytest.mark.parametrize("tokens", [1, 10_000, 100_000_000])
@pytest.mark.parametrize("one", [H100, RTX, A100, H100.model_copy(update={"billing_increment": 60})])
@pytest.mark.parametrize("slower", [None, 0.01, 1.0, 30.0])
def test_what_is_expected_is_never_outside_the_range(tokens: int, one: Any, slower: float | None) -> None:
    known = [measured(slower=slower, number=number) for number in range(3)] if slower else []
    found = estimate(work(tokens), one, known)
    assert found
    for part in (found.cost, found.minutes):
        assert 0 < part.low <= part.expected <= part.high
    assert found.measured_jobs == len(known)


def test_an_estimate_is_training_at_the_rated_speed_and_what_is_around_it() -> None:
    found = estimate(work(), H100)
    assert found
    # 10 million tokens x 4 FLOPs x 6.7 billion, at 35 % of 989 TFLOP/s; 30 s boot, 17.5 GB at 100 MB/s, 30 s of starts
    seconds = 1e7 * 4 * LLAMA.parameters / (989e12 * 0.35) + 30 + 40 + 2 * LLAMA.parameters / 1e8 + 30
    assert found.minutes.expected == pytest.approx(seconds / 60, rel=1e-3)
    assert found.cost.expected == pytest.approx(seconds * 3.0 / 3600, rel=1e-2)
    assert estimate(work(), ABACUS) is None


def test_what_takes_longer_is_expected_to() -> None:
    def minutes(one: Any = H100, **changes: Any) -> float:
        found = estimate(work(**changes), one)
        assert found
        return found.minutes.expected

    assert minutes(gradient_checkpointing=True) > minutes()
    assert minutes(precision=Precision.FLOAT32) > minutes()
    assert minutes(RTX) > minutes(A100) > minutes()
    assert minutes(H100.model_copy(update={"gpu_count": 4})) < minutes()
    assert minutes(H100.model_copy(update={"gpu_count": 4}), num_processes=1) == minutes()
    assert minutes(H100.model_copy(update={"boot_seconds": 600})) > minutes()


@pytest.mark.parametrize(
    ("seconds", "increment", "paid"), [(0.5, 1, 1), (60, 60, 60), (61, 60, 120), (3601, 3600, 7200)]
)
def test_every_begun_increment_is_paid_for(seconds: float, increment: int, paid: int) -> None:
    one = H100.model_copy(update={"billing_increment": increment})
    assert cost(one, seconds) == pytest.approx(paid * 3.0 / 3600)


def test_no_rental_costs_less_than_the_least() -> None:
    assert cost(H100.model_copy(update={"minimum_charge": 1.0}), 1) == 1.0


def test_finished_jobs_move_the_estimate_towards_what_they_took_and_narrow_it() -> None:
    plain = estimate(work(), H100)
    assert plain
    last, spread = plain.minutes.expected, plain.minutes.high / plain.minutes.low
    for count in (1, 2, 8):
        found = estimate(work(), H100, [measured(slower=3, number=number) for number in range(count)])
        assert found
        assert last < found.minutes.expected < 3.2 * plain.minutes.expected
        assert found.minutes.high / found.minutes.low < spread
        last, spread = found.minutes.expected, found.minutes.high / found.minutes.low
    assert last == pytest.approx(3 * plain.minutes.expected, rel=0.2)


def test_an_unrated_gpu_is_as_fast_as_it_was_seen_to_be() -> None:
    known = [measured("gpu-abacus")]
    found, rated = estimate(work(), ABACUS, known), estimate(work(), H100)
    assert found and rated
    assert found.minutes.expected == pytest.approx(rated.minutes.expected, rel=0.1)


def test_the_dearer_machine_wins_where_it_is_done_so_much_sooner() -> None:
    big, small = work(1_000_000_000), work(10_000)
    assert H100.hourly_rate > A100.hourly_rate > RTX.hourly_rate
    assert [priced.offer.resource_id for priced in rank(big, [A100, H100], {})] == ["gpu-h100", "gpu-a100"]
    assert [priced.offer.resource_id for priced in rank(small, [H100, A100, RTX], {})] == [
        "gpu-rtx4090",
        "gpu-a100",
        "gpu-h100",
    ]


def test_the_order_of_offers_makes_no_difference_and_cost_decides() -> None:
    for given in itertools.permutations([H100, A100, RTX, ABACUS]):
        found = rank(work(), given, {})
        costs = [priced.estimate.cost.expected for priced in found if priced.estimate]
        assert costs == sorted(costs)
        assert found[-1].offer is ABACUS  # nobody knows what it would cost there, however little an hour does


def test_what_cannot_be_taken_is_left_out() -> None:
    spot = A100.model_copy(update={"spot": True, "hourly_rate": 0.9})
    gone = A100.model_copy(update={"available": False})
    small = offer("gpu-t4", 0.1, gpu_type="Tesla T4", vram_gb=4)
    assert rank(work(), [spot, gone, small], {}) == []
    assert [priced.offer for priced in rank(work(spot=True), [spot, A100], {})] == [spot]
    assert rank(work(num_processes=2), [A100], {}) == []
    assert rank(work(max_cost=0.001), [A100], {}) == []
    assert rank(work(max_duration=0.1), [A100], {}) == []


def test_measurements_of_one_kind_of_machine_say_nothing_of_another() -> None:
    known = {("runpod", "gpu-h100"): [measured(slower=50, number=number) for number in range(9)]}
    first, second = rank(work(1_000_000_000), [H100, A100], known)
    assert (first.offer, second.offer) == (A100, H100)
    assert first.estimate and second.estimate
    assert (first.estimate.measured_jobs, second.estimate.measured_jobs) == (0, 9)


MARKET = Market([H100, A100, RTX, A100.model_copy(update={"provider": "lambda", "hourly_rate": 1.2})])


def refusal(market: Market = MARKET, **changes: Any) -> InvalidConfig:
    wanted = work(**changes)
    with pytest.raises(InvalidConfig) as caught:
        check_wishes(market, "runpod", wanted.config.wanted_resource, wanted.config.spot)
        choose(wanted, market, "runpod")
    assert caught.value.details["field"] in caught.value.message
    return caught.value


def test_the_cheapest_to_finish_is_chosen_and_three_of_all_providers_are_shown() -> None:
    chosen, best = choose(work(), MARKET, "runpod")
    assert chosen.offer.provider == "runpod"
    assert len(best) == 3
    assert {one.provider for one in best} == {"runpod", "lambda"}
    named, _ = choose(work(resource_id="gpu-h100"), MARKET, "runpod")
    assert named.offer is H100
    auto, _ = choose(work(resource_id="auto"), MARKET, "runpod")
    assert auto.offer is chosen.offer


def test_an_unknown_machine_is_refused_with_close_ones() -> None:
    error = refusal(resource_id="gpu-h1000")
    assert error.details["field"] == "resource_id"
    assert "'gpu-h100'" in error.message


def test_spot_where_there_is_none_is_refused() -> None:
    assert refusal(spot=True).details["field"] == "spot"
    spot = Market([*MARKET.offers, A100.model_copy(update={"spot": True})])
    assert refusal(spot, spot=True, resource_id="gpu-h100").details["field"] == "spot"
    assert choose(work(spot=True), spot, "runpod")[0].offer.spot


def test_a_machine_that_is_too_small_is_refused_with_what_would_do() -> None:
    heavy = {"algorithm": Algorithm.LORA, "quantization": None, "batch_size": 4}
    error = refusal(resource_id="gpu-rtx4090", **heavy)
    assert error.details["field"] == "resource_id"
    assert error.details["fits"] == ["gpu-a100", "gpu-h100"]
    assert error.details["needed_vram_gb"] == needed_gb(config(), LLAMA, DATA)
    assert "24 GB do not hold it" in error.message
    elsewhere = Market([RTX, A100.model_copy(update={"provider": "lambda"})])
    assert refusal(elsewhere, **heavy).details["fits"] == ["gpu-a100 (lambda)"]
    assert "no connected provider" in refusal(Market([RTX]), **heavy).message


def test_limits_that_cannot_be_kept_are_refused_with_what_it_would_take() -> None:
    error = refusal(max_cost=0.01)
    assert error.details["field"] == "max_cost"
    assert "$" in error.message
    assert refusal(max_duration=0.5).details["field"] == "max_duration"
    assert refusal(num_processes=2).details["field"] == "num_processes"
    assert choose(work(max_cost=100, max_duration=1000), MARKET, "runpod")[0].estimate


def test_what_is_sold_out_may_come_back() -> None:
    gone = Market([A100.model_copy(update={"available": False})])
    with pytest.raises(ResourceUnavailable) as caught:
        choose(work(), gone, "runpod")
    assert caught.value.details["field"] == "resource_id"
    with pytest.raises(ResourceUnavailable):
        check_wishes(Market(), "runpod", None, spot=False)


def receipt(**changes: Any) -> MachineReceipt:
    given = {
        "name": "machine-a",
        "provider": "runpod",
        "resource_id": "gpu-h100",
        "job_id": "job_1",
        "attempt": 1,
        "status": MachineStatus.GONE,
        "offered_rate": 3.0,
        "billing_increment": 1,
        "intended_at": NOW,
        "rented_at": NOW,
        "released_at": NOW + timedelta(seconds=400),
    }
    return MachineReceipt.model_validate(given | changes)


def summary(seconds: float = 300.0, tokens: int = 1_000_000) -> TrainingSummary:
    return TrainingSummary(
        total_steps=1,
        epochs=1,
        final_loss=1,
        best_loss=1,
        train_rows=1,
        held_out_rows=0,
        tokens=tokens,
        supervised_tokens=1,
        tokens_per_second=1,
        seconds=seconds,
        peak_memory_mb=1,
        trainable_parameters=1,
    )


def planned() -> Plan:
    return Plan(
        config=config(),
        model=LLAMA,
        dataset=DATA,
        cache_key="k",
        total_steps=1,
        estimated_cost=None,
        estimated_duration_minutes=None,
    )


def test_finished_jobs_are_remembered_by_the_machine_they_ran_on(studio_settings: Settings) -> None:
    assert measured_speeds.read(studio_settings) == {}
    for number in range(30):
        measured_speeds.note(studio_settings, planned(), [receipt(job_id=f"job_{number}")], summary())
    measured_speeds.note(studio_settings, planned(), [receipt(job_id="job_29")], summary(seconds=200))
    with (studio_settings.data_dir / measured_speeds.FILE).open("a") as file:
        file.write("half a li")
    (jobs,) = measured_speeds.read(studio_settings).values()
    assert [job.job_id for job in jobs] == [f"job_{number}" for number in range(10, 30)]
    assert (jobs[0].training_seconds, jobs[0].other_seconds) == (300, 100)
    assert (jobs[-1].training_seconds, jobs[-1].other_seconds) == (200, 200)


@pytest.mark.parametrize(
    "receipts",
    [
        [],
        [receipt(), receipt(attempt=2)],
        [receipt(rented_at=None)],
        [receipt(released_at=None)],
    ],
)
def test_what_says_little_of_a_machine_is_not_remembered(
    studio_settings: Settings, receipts: list[MachineReceipt]
) -> None:
    measured_speeds.note(studio_settings, planned(), receipts, summary())
    measured_speeds.note(studio_settings, planned(), [receipt()], summary(seconds=0, tokens=0))
    assert measured_speeds.read(studio_settings) == {}
