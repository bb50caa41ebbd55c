"""How sure a difference is: the paired bootstrap, over rows."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from peft_studio.evaluation.comparison import Bootstrap, Measure, ModelComparison

Values = NDArray[np.float64]

FEWEST_ROWS = 5  # below that an interval says more than is known
_AT_ONCE = 1 << 22  # row numbers that are drawn in one go
_MOST = 700.0  # e to a greater power is no number


def compare(
    measure: Measure, base: Values, adapter: Values, bootstrap: Bootstrap, weights: Values | None = None
) -> ModelComparison | None:
    """
    Compare two models by what each makes of the same rows; None where no row counts.

    ``base`` and ``adapter`` hold a value a row (shape ``(rows,)``), ``weights`` how much a row counts, by default 1:
    the measure is the sum of the values over the sum of the weights, so that a mean over tokens takes the row's sum
    and its number of tokens. Of perplexity the values are those of the loss.
    """
    counts = np.ones_like(base) if weights is None else weights
    kept = counts > 0
    base, adapter, counts = base[kept], adapter[kept], counts[kept]
    if not len(counts):
        return None
    of_mean: Callable[[Values], Values] = _perplexity if measure is Measure.PERPLEXITY else np.asarray
    before, after = (float(of_mean(values.sum() / counts.sum())) for values in (base, adapter))
    low, high = interval(base, adapter, counts, bootstrap, of_mean)
    found = without_interval(measure, before, after, len(counts))
    return found.model_copy(update={"low": low, "high": high, "differing": int((base != adapter).sum())})


def without_interval(measure: Measure, base: float, adapter: float, rows: int) -> ModelComparison:
    """Compare two models of which only the means are known."""
    difference = adapter - base
    return ModelComparison(base=base, adapter=adapter, difference=difference, rows=rows, better=measure.better)


def interval(
    base: Values,
    adapter: Values,
    counts: Values,
    bootstrap: Bootstrap,
    of_mean: Callable[[Values], Values] = np.asarray,
) -> tuple[float, float] | tuple[None, None]:
    """
    Return the ends of a confidence interval of the difference between two means; none of fewer than five rows.

    The percentile interval of B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13, of the
    difference on rows drawn with replacement, the same rows for both models as in P. Koehn, Statistical Significance
    Tests for Machine Translation Evaluation (2004, https://aclanthology.org/W04-3250). Equal input gives equal output.
    """
    rows = len(counts)
    if rows < FEWEST_ROWS or not (np.isfinite(base).all() and np.isfinite(adapter).all()):
        return None, None
    draw = np.random.default_rng(bootstrap.seed)
    found: list[Values] = []
    left = bootstrap.resamples
    while left:
        some = min(left, max(1, _AT_ONCE // rows))
        drawn = draw.integers(rows, size=(some, rows))
        total = counts[drawn].sum(1)
        found.append(of_mean(adapter[drawn].sum(1) / total) - of_mean(base[drawn].sum(1) / total))
        left -= some
    outside = (1 - bootstrap.confidence) / 2
    low, high = np.quantile(np.concatenate(found), [outside, 1 - outside])
    return float(low), float(high)


def _perplexity(mean: Values) -> Values:
    return np.exp(np.minimum(mean, _MOST))
