"""How sure a score is: what is made of its items, and numpy only.

An evaluation keeps one row for each query, image or pair (`Evaluation.items`) and the name of the function in `STATISTICS` that makes
the primary metric of them.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


def mean(items: np.ndarray) -> float:
    """Of one number an item [N]."""
    return float(np.mean(items))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of the ranks [N], equal values sharing the mean of theirs; NaN where either is constant."""
    return pearson(mean_ranks(a), mean_ranks(b))


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Linear correlation of two rows of numbers [N], in float64; NaN where either is constant."""
    centred = []
    for row in (np.asarray(a, np.float64), np.asarray(b, np.float64)):
        if (row == row[0]).all():  # before the mean is taken, whose rounding would leave noise to correlate
            return float("nan")
        centred.append((row - row.mean()) / np.abs(row - row.mean()).max())  # squares of tiny differences would underflow
    a, b = (row / np.linalg.norm(row) for row in centred)
    return float(np.clip(a @ b, -1, 1))


def mean_ranks(row: np.ndarray) -> np.ndarray:
    """Rank of each value from 1, equal ones sharing the mean of theirs [N]."""
    _, number, count = np.unique(row, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[number]


def max_ap(items: np.ndarray) -> float:
    """Highest average precision of any column but the last, which is 1 for a positive and else 0 [N P]; NaN without both kinds."""
    positive = items[:, -1] == 1
    if positive.all() or not positive.any():
        return float("nan")
    return max(average_precision(column, positive) for column in items[:, :-1].T)


def auroc(items: np.ndarray) -> float:
    """Chance that a positive scores above a negative, equal scores counting half; NaN without both kinds.

    Args:
        items: score, and 1 for a positive or 0 for a negative [N 2].
    """
    score, positive = items[:, 0], items[:, 1] == 1
    ours, others = np.count_nonzero(positive), np.count_nonzero(~positive)
    if not ours or not others:
        return float("nan")
    return float((mean_ranks(score)[positive].sum() - ours * (ours + 1) / 2) / (ours * others))


def average_precision(score: np.ndarray, positive: np.ndarray) -> float:
    """Sum over thresholds of the gain in recall times the precision; equal scores are let in together."""
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))  # of each run of equal scores
    hits = np.cumsum(positive[order])[last]
    return float(np.sum(np.diff(hits / positive.sum(), prepend=0.0) * hits / (last + 1)))


def resamples(items: int, number: int, seed: int) -> Iterator[np.ndarray]:
    """Rows of each bootstrap sample [items], drawn with replacement; the same for all models that are measured on the same items."""
    rng = np.random.default_rng(seed)
    for _ in range(number):
        yield rng.integers(0, items, items)


def interval(items: np.ndarray, statistic: str = "mean", *, number: int = 2000, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap: between which two values the score lies when the items are drawn again from items like these.

    Args:
        items: rows of `Evaluation.items`.
        statistic: name in `STATISTICS`.
        number: of samples.
        seed: of the draws.
        level: share of the samples between the two values.

    Returns:
        The two values; samples where the score is undefined are left out, NaN where all are.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 13.3.
    """
    make = STATISTICS[statistic]
    return _percentiles(np.array([make(items[rows]) for rows in resamples(len(items), number, seed)]), level)


class Paired(NamedTuple):
    """What two models differ by on the same items: the difference (second less first), its interval, and a two-sided p-value."""

    difference: float
    low: float
    high: float
    p: float


def paired(
    first: np.ndarray, second: np.ndarray, statistic: str = "mean", *, number: int = 2000, seed: int = 0, level: float = 0.95
) -> Paired:
    """Paired bootstrap of two models: both are scored on the same drawn items, so what makes an item hard cancels.

    `p` is twice the share of samples on the wrong side of 0, the observed one counted among them: never below 2 / (number + 1).

    Args:
        first: rows of `Evaluation.items` of one model.
        second: those of the other, in the same order.
        statistic: name in `STATISTICS`.
        number: of samples.
        seed: of the draws.
        level: of the interval.

    Raises:
        ValueError: other numbers of items, which cannot be the same ones.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} items are not the same ones; evaluate both models on the same data.")
    make = STATISTICS[statistic]
    found = np.array([make(second[rows]) - make(first[rows]) for rows in resamples(len(first), number, seed)])
    known = found[~np.isnan(found)]
    wrong = min(np.sum(known <= 0), np.sum(known >= 0)) if len(known) else number
    p = min(1.0, 2 * (wrong + 1) / (len(known) + 1))
    return Paired(make(second) - make(first), *_percentiles(found, level), p)


def _percentiles(found: np.ndarray, level: float) -> tuple[float, float]:
    found = found[~np.isnan(found)]
    tail = 50 * (1 - level)
    return tuple(np.percentile(found, (tail, 100 - tail)).tolist()) if len(found) else (float("nan"), float("nan"))


def holm(p: np.ndarray) -> np.ndarray:
    """p-values of several tests [T], raised so that the chance of any false alarm among them stays what each says.

    Source: Holm 1979.
    """
    p = np.asarray(p, np.float64)
    order = np.argsort(p, kind="stable")
    raised = np.empty(len(p))
    raised[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return raised


def borda(scores: np.ndarray) -> np.ndarray:
    """Points of each model [M]: on each task the number of models less its rank, equal scores sharing theirs, 0 where it has none.

    Args:
        scores: of models by tasks [M T], more is better; NaN where a model has none.

    Source: Enevoldsen et al. 2025, arXiv:2502.13595 (MMTEB).
    """
    scores = np.asarray(scores, np.float64)
    points = np.zeros(len(scores))
    for column in scores.T:
        there = ~np.isnan(column)
        if there.any():
            points[there] += len(scores) - mean_ranks(-column[there])
    return points


def places(points: np.ndarray) -> list[int]:
    """Place of each model by its points, the most first; equal points take the best of their places."""
    return [int(np.sum(points > own)) + 1 for own in points]


STATISTICS = {"mean": mean, "spearman": lambda items: spearman(*items.T), "max_ap": max_ap, "auroc": auroc}
