"""Which points of a sweep go on at a rung."""

from infra.hyperparameters.halving import Verdicts, best_of, judge, passes
from peft_studio.experiments import Direction
from peft_studio.sweeps import EarlyStopping

STOPPING = EarlyStopping(rungs=[10, 20], reduction_factor=2)


def judged(verdicts: Verdicts, number: int, curve: dict[int, float], *, live: bool = True) -> bool:
    return judge(verdicts, number, curve, STOPPING, "minimize", "eval_loss", live)


def test_the_first_one_at_a_rung_goes_on_and_so_do_the_best_of_many() -> None:
    assert passes(9.0, [], 3, "minimize")
    values = [float(n) for n in range(1, 9)]
    kept = [value for value in values if passes(value, [v for v in values if v != value], 4, "minimize")]
    assert kept == [1.0, 2.0]  # the best 1 / 4 of 8
    assert passes(3.0, [1.0, 2.0], 3, "maximize") and not passes(1.0, [2.0, 3.0], 3, "maximize")


def test_a_point_that_is_not_among_the_best_is_stopped_and_the_reason_is_kept() -> None:
    verdicts = Verdicts()
    assert judged(verdicts, 0, {10: 2.0})
    assert judged(verdicts, 1, {10: 3.0})
    assert verdicts.rungs == {10: {0: 2.0, 1: 3.0}}
    assert verdicts.stopped == {1: "At step 10 its eval_loss of 3 was not among the best 1 of 2 points."}


def test_nothing_is_decided_twice() -> None:
    verdicts = Verdicts()
    judged(verdicts, 0, {10: 2.0})
    kept = Verdicts.model_validate_json(verdicts.model_dump_json())  # as another process reads it
    assert not judged(kept, 0, {10: 5.0})
    assert kept == verdicts


def test_the_value_at_a_rung_is_the_first_one_at_its_step_or_after() -> None:
    verdicts = Verdicts()
    assert not judged(verdicts, 0, {9: 1.0})
    judged(verdicts, 0, {9: 1.0, 12: 2.0, 15: 3.0})
    assert verdicts.values_of(0) == {10: 2.0}


def test_a_point_that_has_ended_counts_for_others_and_is_not_stopped() -> None:
    verdicts = Verdicts()
    judged(verdicts, 0, {10: 1.0})
    judged(verdicts, 1, {10: 2.0, 20: 1.5}, live=False)
    assert verdicts.stopped == {} and verdicts.rungs[20] == {1: 1.5}


def test_what_is_no_number_is_the_worst_and_can_be_kept_as_json() -> None:
    cases: list[tuple[Direction, float]] = [("minimize", 5.0), ("maximize", -5.0)]
    for direction, good in cases:
        verdicts = Verdicts()
        judge(verdicts, 0, {10: good}, STOPPING, direction, "eval_loss", True)
        judge(verdicts, 1, {10: float("nan")}, STOPPING, direction, "eval_loss", True)
        assert verdicts.stopped.keys() == {1}
        assert Verdicts.model_validate_json(verdicts.model_dump_json()) == verdicts


def test_the_best_is_the_first_of_equals_and_a_number() -> None:
    assert best_of([(0, float("nan")), (1, 2.0), (2, 2.0), (3, 3.0)], "minimize") == 1
    assert best_of([(0, 1.0), (1, 2.0)], "maximize") == 1
    assert best_of([], "minimize") is None
