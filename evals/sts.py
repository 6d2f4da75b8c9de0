"""Semantic textual similarity: how the similarity of pairs goes with what people say of them."""

from collections.abc import Callable, Mapping

import numpy as np

from core.config import choose
from evals import bag_of_words, pair_scores
from evals.evaluation import Evaluation
from evals.statistics import pearson, spearman

CONTROLS = {"bag_of_words": bag_of_words.of_pairs}


def sts(encode: Mapping[str, Callable], data, *, first: str = "text", second: str = "text", controls: tuple[str, ...] = ()) -> Evaluation:
    """Spearman's and Pearson's correlation of each similarity with the scores, over all pairs at once.

    Args:
        encode: functions of the views.
        data: a set with `similarity()`.
        first: the view that reads the first of each pair.
        second: the view that reads the second.
        controls: what scores the same texts beside the model: `bag_of_words`.

    Returns:
        `{cosine,manhattan,euclidean}_{spearman,pearson}` from -1 to 1, `cosine_spearman` being the primary one; NaN where all
        similarities are equal, as those of a collapsed model are, and `count/undefined` of these; the same under `<control>/`;
        `tie_rate`, the share of pairs whose cosine another pair has too, in float32; and `count/pairs`.

    Raises:
        ConfigError: an unknown control.
        ValueError: fewer than two pairs, scores that are not finite or all equal, or embeddings that are not finite.

    Source: Cer et al. 2017; the distances are those of MTEB.
    """
    rivals = {name: choose(CONTROLS, name, "config.evals.<label>.options.controls") for name in controls}
    task = data.similarity()
    gold = _check_gold(np.asarray(task.score, np.float64), len(task.first), len(task.second))
    one, other = encode[first](task.first), encode[second](task.second)
    found = {name: found for name, found in pair_scores.similarities(one, other).items() if name != "dot"}
    values = _correlations(found, gold)
    values["count/undefined"] = float(np.isnan(list(values.values())).sum())
    for name, score in rivals.items():
        values |= _correlations({f"{name}/cosine": score(task.first, task.second)}, gold)
    _, number, shared = np.unique(found["cosine"], return_inverse=True, return_counts=True)
    values |= {"tie_rate": float(np.mean(shared[number] > 1)), "count/pairs": float(len(gold))}
    return Evaluation("cosine_spearman", values, len(gold), items=np.stack([found["cosine"], gold], axis=1), statistic="spearman")


def _correlations(found: Mapping[str, np.ndarray], gold: np.ndarray) -> dict[str, float]:
    measures = {"spearman": spearman, "pearson": pearson}
    return {f"{name}_{measure}": of(score, gold) for name, score in found.items() for measure, of in measures.items()}


def _check_gold(gold: np.ndarray, first: int, second: int) -> np.ndarray:
    if not first == second == gold.size or gold.ndim != 1 or gold.size < 2:
        raise ValueError(f"{first} and {second} texts with scores of shape {gold.shape}; give two pairs or more, with a score each.")
    if not np.isfinite(gold).all():
        raise ValueError(f"scores of pairs {np.flatnonzero(~np.isfinite(gold))[:8].tolist()} are not finite.")
    if (gold == gold[0]).all():
        raise ValueError(f"all {gold.size} pairs have the score {gold[0]}, which nothing can correlate with.")
    return gold
