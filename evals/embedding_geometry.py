"""Geometry of the pairs of a set: how near partners are, how far the two sides lie apart, how each fills the sphere."""

from collections.abc import Callable, Mapping

import numpy as np

from core.config import ConfigError, choose
from evals import geometry, metrics
from evals.evaluation import Evaluation

RANKME_EPSILON = 1e-7

# Raw values of both views and the pairs (first, second) that belong together, by the method of the data that has them.
PAIRED = {
    "retrieval": lambda task: (task.images, task.texts, task.relevant),
    "ranking": lambda task: (task.queries, task.corpus, task.relevant[(task.relevant[:, 2:] > 0).all(axis=1)]),  # a grade, if any
    "bitext": lambda task: (task.sources, task.targets, np.stack([np.arange(len(task.gold)), task.gold], axis=1)),
}


def embedding_geometry(
    encode: Mapping[str, Callable], data, *, task: str = "retrieval", first: str = "image", second: str = "text", rows: int = 10_000,
    power: float = 2.0, t: float = 2.0, seed: int = 0,
) -> Evaluation:  # fmt: skip
    """How pairs lie to each other, and how each side fills the sphere.

    Args:
        encode: functions of the views.
        data: a set with the method `task`.
        task: `retrieval`, `ranking` or `bitext`: where the pairs come from.
        first: the view that reads images, queries or source sentences.
        second: the view that reads texts, the corpus or target sentences.
        rows: pairs, and values of each side, drawn from all; effective ranks want ten times as many as there are features.
        power: of the distance in alignment.
        t: of uniformity.
        seed: of the draws.

    Returns:
        `align_uniform` (primary), which is -alignment - the mean uniformity of both sides / 2, and 0 for a collapsed model. Under
        `geometry/`, where neither more nor less is better in itself: `alignment`; `modality_gap`, `centroid_cosine` (NaN where a
        centroid is 0), `modality_accuracy` of a linear probe that tells the sides apart on rows it did not learn from, and
        `alignment_without_gap`, after each side was moved half of the gap towards the other; for each side, ending in `_<first>` and
        `_<second>` (one view for both: `_<view>_1` and `_<view>_2`): `uniformity`, `mean_cosine`, `isoscore`, `partition_isotropy`,
        `effective_rank`, `rankme` and `effective_rank_covariance`. And `count/{pairs,<first>,<second>}`.

    Raises:
        ConfigError: an unknown task, or fewer than four rows.
        ValueError: fewer than four values on a side, no pair, or embeddings that are not finite.
    """
    if rows < 4:
        raise ConfigError(f"config.evals.<label>.options.rows is {rows}; set it to 4 or more.")
    read = choose(PAIRED, task, "config.evals.<label>.options.task")
    *values, pairs = read(getattr(data, task)())
    rng = np.random.default_rng(seed)
    pairs = np.asarray(pairs)[np.sort(rng.permutation(len(pairs))[:rows])][:, :2]
    if not len(pairs) or min(map(len, values)) < 4:
        raise ValueError(
            f"{len(pairs)} pairs of {len(values[0])} and {len(values[1])} values; geometry needs a pair and four values a side."
        )
    drawn = [np.sort(rng.permutation(len(side))[:rows]) for side in values]
    sides, paired = {}, []
    for place, (view, side) in enumerate(zip((first, second), values, strict=True)):
        wanted = np.union1d(drawn[place], pairs[:, place])
        encoded = metrics.unit(encode[view]([side[i] for i in wanted]), f"{view} embeddings")
        sides[view if first != second else f"{view}_{place + 1}"] = encoded[np.searchsorted(wanted, drawn[place])]
        paired.append(encoded[np.searchsorted(wanted, pairs[:, place])])
    found = _between(*sides.values(), *paired, power, seed)
    for name, side in sides.items():
        found |= {f"{key}_{name}": value for key, value in _within(side, t).items()}
    out = {"align_uniform": -found["alignment"] - sum(found[f"uniformity_{name}"] for name in sides) / 4}
    out |= {f"geometry/{name}": value for name, value in found.items()}
    out |= {"count/pairs": float(len(pairs))} | {f"count/{name}": float(len(side)) for name, side in sides.items()}
    return Evaluation("align_uniform", out, len(pairs))


def _between(x: np.ndarray, y: np.ndarray, px: np.ndarray, py: np.ndarray, power: float, seed: int) -> dict[str, float]:
    """Measures of two sides, x and y being rows of each, px and py those of pairs."""
    moved = geometry.shift(px, py, 1.0)
    centroids = [side.mean(axis=0) for side in (x, y)]
    lengths = [np.linalg.norm(centroid) for centroid in centroids]
    return {
        "alignment": geometry.alignment(px, py, power=power),
        "alignment_without_gap": geometry.alignment(*moved, power=power),
        "modality_gap": geometry.modality_gap(x, y),
        "centroid_cosine": float(centroids[0] @ centroids[1] / np.prod(lengths)) if min(lengths) > 0 else float("nan"),
        "modality_accuracy": geometry.modality_accuracy(x, y, seed=seed),
    }


def _within(x: np.ndarray, t: float) -> dict[str, float]:
    """Measures of one side."""
    return {
        "uniformity": geometry.uniformity(x, t=t),
        "mean_cosine": geometry.mean_cosine(x),
        "isoscore": geometry.isoscore(x) if x.shape[1] > 1 else float("nan"),
        "partition_isotropy": geometry.partition_isotropy(x),
        "effective_rank": geometry.effective_rank(x),
        "rankme": geometry.effective_rank(x, epsilon=RANKME_EPSILON),
        "effective_rank_covariance": geometry.effective_rank_covariance(x),
    }
