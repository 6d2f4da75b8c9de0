"""How sure a score is: what is made of its items, and numpy only.

An evaluation keeps one row for each query, image or pair (`Evaluation.items`) and the name of the function in `STATISTICS` that makes
the primary metric of them.
"""

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


def average_precision(score: np.ndarray, positive: np.ndarray) -> float:
    """Sum over thresholds of the gain in recall times the precision; equal scores are let in together."""
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))  # of each run of equal scores
    hits = np.cumsum(positive[order])[last]
    return float(np.sum(np.diff(hits / positive.sum(), prepend=0.0) * hits / (last + 1)))


STATISTICS = {"mean": mean, "spearman": lambda items: spearman(*items.T), "max_ap": max_ap}
