"""Intervals of differences: their size where it is known, that they are paired, and that they repeat."""

import math

import numpy as np
import pytest

from peft_studio.evaluation.bootstrap import compare
from peft_studio.evaluation.comparison import Bootstrap, Measure

USUAL = Bootstrap()


def drawn(seed: int, rows: int = 400, shift: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Losses of two models on the same rows, which differ far more from row to row than from model to model."""
    draw = np.random.default_rng(seed)
    base = draw.gamma(4.0, 1.0, rows)
    return base, base - shift + draw.normal(0, 0.2, rows)


def test_a_difference_of_means_has_the_interval_that_the_normal_distribution_gives() -> None:
    base, adapter = drawn(1)
    found = compare(Measure.LOSS, base, adapter, USUAL)
    assert found and found.low is not None and found.high is not None
    differences = adapter - base
    error = differences.std(ddof=1) / math.sqrt(len(differences))
    assert found.difference == pytest.approx(differences.mean())
    assert found.low == pytest.approx(differences.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(differences.mean() + 1.96 * error, abs=0.15 * error)
    assert (found.rows, found.better) == (400, "lower")


def test_rows_are_drawn_for_both_models_alike() -> None:
    base, adapter = drawn(2)
    paired = compare(Measure.LOSS, base, adapter, USUAL)
    apart = compare(Measure.LOSS, base, adapter[np.random.default_rng(0).permutation(len(adapter))], USUAL)
    assert paired and apart and paired.low is not None and paired.high is not None
    assert apart.low is not None and apart.high is not None
    assert paired.high < 0 < apart.high, "what both models find hard hides no gain"
    assert apart.high - apart.low > 5 * (paired.high - paired.low)


def test_intervals_hold_the_true_difference_as_often_as_they_promise() -> None:
    quick = Bootstrap(resamples=400, confidence=0.9)
    found = [compare(Measure.LOSS, *drawn(seed, rows=60), quick) for seed in range(300)]
    held = sum(one is not None and one.low is not None and one.low <= -0.1 <= (one.high or 0) for one in found)
    assert 0.85 < held / 300 < 0.95


def test_a_mean_over_tokens_counts_each_row_by_its_tokens() -> None:
    tokens = np.array([1.0, 9.0, 0.0, 5.0, 5.0, 10.0])
    base, adapter = 2 * tokens, np.array([1.0, 18.0, 0.0, 10.0, 10.0, 20.0])
    found = compare(Measure.LOSS, base, adapter, USUAL, tokens)
    assert found and found.rows == 5, "a row without tokens says nothing"
    assert (found.base, found.adapter) == (2.0, pytest.approx(59 / 30))
    assert found.low is not None and found.low < found.difference <= (found.high or 0) <= 0


def test_perplexity_is_e_to_the_mean_loss_and_its_interval_is_of_the_perplexities() -> None:
    base, adapter = drawn(3)
    found = compare(Measure.PERPLEXITY, base, adapter, USUAL)
    assert found and found.low is not None and found.high is not None
    assert found.base == pytest.approx(math.exp(base.mean()))
    assert found.low < found.difference < found.high < 0
    assert found.gain == -found.difference and found.least_gain == -found.high


def test_a_gain_is_positive_where_the_adapter_is_better() -> None:
    right, wrong = np.ones(20), np.zeros(20)
    better = compare(Measure.EXACT_MATCH, wrong, right, USUAL)
    assert better and (better.gain, better.least_gain, better.better) == (1.0, 1.0, "higher")
    worse = compare(Measure.LOSS, wrong, right, USUAL)
    assert worse and (worse.gain, worse.least_gain) == (-1.0, -1.0)


def test_the_same_rows_give_the_same_interval_and_another_seed_another() -> None:
    base, adapter = drawn(4)
    again, other = (compare(Measure.LOSS, base, adapter, Bootstrap(seed=seed)) for seed in (0, 1))
    assert again == compare(Measure.LOSS, base, adapter, USUAL)
    assert again and other and again.low != other.low


def test_a_higher_confidence_has_a_wider_interval() -> None:
    base, adapter = drawn(5)
    narrow, wide = (compare(Measure.LOSS, base, adapter, Bootstrap(confidence=one)) for one in (0.8, 0.99))
    assert narrow and wide and narrow.low is not None and wide.low is not None
    assert wide.low < narrow.low < (narrow.high or 0) < (wide.high or 0)


@pytest.mark.parametrize(("rows", "known"), [(0, False), (4, False), (5, True)])
def test_few_rows_have_no_interval(rows: int, known: bool) -> None:
    base, adapter = drawn(6, rows=rows)
    found = compare(Measure.LOSS, base, adapter, USUAL)
    assert (found is not None) is (rows > 0)
    assert not found or (found.low is not None) is known
    assert not found or known or (found.high, found.least_gain) == (None, None)


def test_a_loss_that_is_no_number_has_no_interval() -> None:
    base, adapter = drawn(7)
    adapter[3] = math.inf
    found = compare(Measure.LOSS, base, adapter, USUAL)
    assert found and (found.low, found.high) == (None, None)


def test_many_rows_are_drawn_in_parts_of_a_bounded_size() -> None:
    base, adapter = drawn(8, rows=50_000)
    found = compare(Measure.LOSS, base, adapter, Bootstrap(resamples=200))
    assert found and found.low is not None and found.low < -0.1 < (found.high or 0)
