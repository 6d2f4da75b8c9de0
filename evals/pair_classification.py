"""Telling apart pairs that belong together from those that do not, by a threshold on their similarity."""

from collections.abc import Callable, Mapping

import numpy as np

from core.config import choose
from evals import bag_of_words, pair_scores
from evals.evaluation import Evaluation
from evals.statistics import average_precision

CONTROLS = {"bag_of_words": bag_of_words.of_pairs}


def pair_classification(
    encode: Mapping[str, Callable], data, *, first: str = "text", second: str = "text", controls: tuple[str, ...] = ()
) -> Evaluation:
    """Average precision of each similarity, and accuracy and F1 at the threshold that is best on the same pairs.

    Args:
        encode: functions of the views.
        data: a set with `pairs()`.
        first: the view that reads the first of each pair.
        second: the view that reads the second.
        controls: what scores the same texts beside the model: `bag_of_words`.

    Returns:
        `{cosine,manhattan,euclidean,dot}_{ap,accuracy,f1,precision,recall}`, precision and recall being those of the best F1;
        `max_*` of each, which picks the similarity after the fact, `max_ap` being the primary one as in MTEB; `cosine_ap_chance`; the
        same of the cosine under `<control>/`; `tie_rate`, the share of pairs whose cosine one of the other kind has too, in float32;
        and `count/{pairs,positives}`.

    Raises:
        ConfigError: an unknown control.
        ValueError: labels other than 0 and 1, or of one kind alone, or embeddings that are not finite.

    Source: MTEB 2.26.
    """
    rivals = {name: choose(CONTROLS, name, "config.evals.<label>.options.controls") for name in controls}
    task = data.pairs()
    positive = _check_labels(np.asarray(task.score), len(task.first), len(task.second))
    found = pair_scores.similarities(encode[first](task.first), encode[second](task.second))
    values = {f"{name}_{key}": value for name, score in found.items() for key, value in threshold_metrics(score, positive).items()}
    values |= _best(values, list(found))
    values["cosine_ap_chance"] = ap_chance(int(positive.sum()), positive.size)
    for name, score in rivals.items():
        beside = threshold_metrics(score(task.first, task.second), positive)
        values |= {f"{name}/cosine_{key}": value for key, value in beside.items()} | {f"{name}/max_ap": beside["ap"]}
    mixed = np.intersect1d(found["cosine"][positive], found["cosine"][~positive])
    values["tie_rate"] = float(np.isin(found["cosine"], mixed).mean())
    values |= {"count/pairs": float(positive.size), "count/positives": float(positive.sum())}
    items = np.stack([*found.values(), positive], axis=1).astype(np.float64)
    return Evaluation("max_ap", values, positive.size, items=items, statistic="max_ap")


def threshold_metrics(score: np.ndarray, positive: np.ndarray) -> dict[str, float]:
    """`ap`, `accuracy`, `f1`, `precision` and `recall` of calling pairs positive from some score on; pairs of equal score go together.

    AP is the sum over thresholds of the gain in recall times the precision. The threshold of the others is the best one on these
    pairs, the highest among equals; calling every pair positive is not tried, so a constant score has 0 in all but `ap`.

    Args:
        score: more is more alike [N].
        positive: whether a pair belongs together [N], some but not all.
    """
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))  # of each run of equal scores
    hits, called, total = np.cumsum(positive[order])[last], last + 1, positive.sum()
    precision, recall = hits / called, hits / total
    out = {"ap": average_precision(score, positive)}
    if len(last) == 1:
        return out | {"accuracy": 0.0, "f1": 0.0, "precision": 0.0, "recall": 0.0}
    right = hits + (len(score) - total) - (called - hits)
    f1 = 2 * hits / (called + total)  # of precision and recall, without their 0 / 0
    best = int(np.argmax(f1[:-1]))
    best_values = {"f1": f1[best], "precision": precision[best], "recall": recall[best]}
    return out | {"accuracy": float(right[:-1].max() / len(score))} | {name: float(value) for name, value in best_values.items()}


def ap_chance(positives: int, pairs: int) -> float:
    """Expected average precision of a random order: the k-th pair is positive with chance P / N, (P - 1) / (N - 1) of those before it."""
    others = (positives - 1) / (pairs - 1)
    harmonic = float(np.sum(1 / np.arange(1, pairs + 1)))
    return others + (1 - others) * harmonic / pairs


def _best(values: Mapping[str, float], names: list[str]) -> dict[str, float]:
    return {f"max_{key}": max(values[f"{name}_{key}"] for name in names) for key in ("ap", "accuracy", "f1", "precision", "recall")}


def _check_labels(labels: np.ndarray, first: int, second: int) -> np.ndarray:
    if not first == second == labels.size or labels.ndim != 1:
        raise ValueError(f"{first} and {second} texts with labels of shape {labels.shape}; each pair needs one.")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"pairs are labelled {np.unique(labels)[:5].tolist()}; 1 for those that belong together, else 0.")
    if labels.size == 0 or (labels == labels[0]).all():
        raise ValueError(f"all {labels.size} pairs have one label, so there is nothing to tell apart.")
    return labels == 1
