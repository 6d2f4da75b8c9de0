"""What probes have in common: the rows of a `ProbeTask`, what is refused before anything is learnt from them, and logistic regression."""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from evals import metrics
from input_pipeline.tasks import Labelled, ProbeTask


class Part(NamedTuple):
    """Embeddings [N d] with the class of each [N]."""

    rows: np.ndarray
    labels: np.ndarray

    def take(self, chosen: np.ndarray) -> "Part":
        """Some of the rows."""
        return Part(self.rows[chosen], self.labels[chosen])


def encode_parts(encode: Callable, task: ProbeTask) -> dict[str, Part]:
    """`train`, `test` and, where there is one, `validation` as embeddings.

    Args:
        encode: raw values to rows.
        task: values with classes.

    Raises:
        ValueError: what `labels_of` refuses, or embeddings that are not finite.
    """
    labels = labels_of(task)
    return {name: Part(metrics.check_rows(encode(getattr(task, name).values), f"{name} embeddings"), labels[name]) for name in labels}


def labels_of(task: ProbeTask) -> dict[str, np.ndarray]:
    """The classes of `train`, `test` and, where there is one, `validation` [N].

    Raises:
        ValueError: labels that do not fit, one class alone, or a class that `train` has no example of.
    """
    labels = {name: check_labels(part, name) for name in ("train", "test", "validation") if (part := getattr(task, name)) is not None}
    if len(known := np.unique(labels["train"])) < 2:
        raise ValueError(f"train has examples of class {known[0]} alone, so there is nothing to tell apart; give two classes or more.")
    for name, some in labels.items():
        if len(strange := np.setdiff1d(some, known)):
            named = ", ".join(map(str, strange[:8])) + (", ..." if len(strange) > 8 else "")
            raise ValueError(f"{name} has rows of {len(strange)} classes that train has no example of: {named}.")
    return labels


def check_labels(part: Labelled, name: str) -> np.ndarray:
    """The labels [N], int64.

    Raises:
        ValueError: not one class from 0 for each value, or no value.
    """
    labels = np.asarray(part.labels)
    if labels.shape != (len(part.values),) or not labels.size or not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise ValueError(f"{name}: labels {labels.dtype} of shape {labels.shape} for {len(part.values)} values; each needs a class from 0.")
    return labels.astype(np.int64)


def set_aside(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Which rows to keep for validation [N]: the share of each class, rounded, never all of it.

    Raises:
        ValueError: no class is large enough to give a row.
    """
    aside, rng = np.zeros(len(labels), bool), np.random.default_rng(seed)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        aside[rows[: min(round(share * len(rows)), len(rows) - 1)]] = True
    if not aside.any():
        raise ValueError(f"no class of train has rows enough to set a share of {share} aside; set options.validation_share higher.")
    return aside


def logistic_regression(part: Part, c: float, *, iterations: int, tolerance: float = 1e-4) -> LogisticRegression:
    """The minimum of c * sum of cross-entropies + |W|^2 / 2 by L-BFGS, in the dtype of the rows; `n_iter_` says if it was reached.

    On one thread: for matrices with few classes a team of threads costs more than it gives (on two cores that others used too, 0.4 s
    for 5,452 x 384 and six classes became 11 s), and sums are taken in one order on every machine.
    """
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # counted by the caller
        return LogisticRegression(C=c, max_iter=iterations, tol=tolerance).fit(part.rows, part.labels)


def majority_share(train: np.ndarray, test: np.ndarray) -> float:
    """Share of `test` that belongs to the most frequent class of `train`: what a model scores that sees nothing."""
    return float(np.mean(test == np.bincount(train).argmax()))
