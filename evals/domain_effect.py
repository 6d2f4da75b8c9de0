"""Whether sets of one domain score lower than others because they are harder: their scores compared at equal complexity."""

from typing import NamedTuple

import numpy as np

BINS = 3


class DomainEffect(NamedTuple):
    """What belonging to the domain adds to the score of a set of equal complexity.

    Attributes:
        effect: coefficient b2 of score = b0 + b1 complexity + b2 [domain].
        low, high: between which b2 lies where the domain means nothing (95% of its draws): outside of it the effect is none of chance.
        p: share of those draws that are as far from 0, the sets' own order counted as one.
        means: mean score of [low, mid, high complexity] x [other, domain]; NaN where there is no set.
        counts: sets in each.
    """

    effect: float
    low: float
    high: float
    p: float
    means: np.ndarray
    counts: np.ndarray


def domain_effect(score: np.ndarray, complexity: np.ndarray, domain: np.ndarray, *, number: int = 10_000, seed: int = 0) -> DomainEffect:
    """Regression on complexity and domain; its chance by shuffling which sets are of the domain, within thirds of complexity.

    With few sets a third has few shuffles, and fewer than three sets in a cell of `counts` say nothing. Several measures of complexity
    are several tests: correct their p by `evals.statistics.holm`.

    Args:
        score: of each set [M].
        complexity: of each set [M], by one measure.
        domain: whether it belongs to the domain [M].
        number: of shuffles.
        seed: of the shuffles.

    Raises:
        ValueError: other lengths, values that are not finite, or sets of one kind alone.

    Source: Tang and Yang 2024, arXiv:2409.18511.
    """
    score, complexity, domain = np.asarray(score, np.float64), np.asarray(complexity, np.float64), np.asarray(domain, bool)
    if not score.shape == complexity.shape == domain.shape == (len(score),) or not np.isfinite([score, complexity]).all():
        raise ValueError(f"scores {score.shape}, complexities {complexity.shape} and domains {domain.shape}: one finite number a set each.")
    if domain.all() or not domain.any():
        raise ValueError(f"all {len(domain)} sets are of one kind, so there is nothing to compare.")
    third = np.searchsorted(np.quantile(complexity, np.arange(1, BINS) / BINS), complexity, side="left")  # equal ones stay together
    effect, rng = _effect(score, complexity, domain), np.random.default_rng(seed)
    drawn = np.array([_effect(score, complexity, _shuffled(domain, third, rng)) for _ in range(number)])
    far = np.abs(drawn) >= np.abs(effect) - 1e-12 * np.abs(score).max()  # the same sets in another order may differ by rounding
    cells = [[score[(third == i) & (domain == side)] for side in (False, True)] for i in range(BINS)]
    means = np.array([[cell.mean() if len(cell) else np.nan for cell in row] for row in cells])
    low, high = np.quantile(drawn, (0.025, 0.975))
    return DomainEffect(
        effect, float(low), float(high), (1 + int(far.sum())) / (1 + number), means, np.array([[*map(len, row)] for row in cells])
    )


def _effect(score: np.ndarray, complexity: np.ndarray, domain: np.ndarray) -> float:
    """b2 by least squares on centred columns; the smallest solution where complexity and domain say the same."""
    centred = np.stack([complexity - complexity.mean(), domain - domain.mean()], axis=1)
    centred[:, 0] /= np.abs(centred[:, 0]).max() or 1.0
    return float(np.linalg.lstsq(centred, score - score.mean(), rcond=None)[0][1])


def _shuffled(domain: np.ndarray, third: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    out = domain.copy()
    for i in range(BINS):
        out[third == i] = rng.permutation(domain[third == i])
    return out
