"""Telling images of unknown classes from those of known ones by the scores of zero-shot classification."""

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict
from scipy.special import logsumexp
from sklearn.metrics import auc, precision_recall_curve

from core.config import ConfigError
from evals import metrics, zeroshot
from evals.evaluation import Evaluation
from evals.statistics import auroc
from input_pipeline import EVAL_SETS, SOURCES
from input_pipeline.batching import make_source

KEY = "config.evals.<label>.options"


def ood(
    encode: Mapping[str, Callable], data, *, unknown_share: float = 0.2, outside: Mapping = {}, templates=(),
    scale: float = metrics.PROBABILITY_SCALE, temperature: float = 1.0, seed: int = 0,
) -> Evaluation:  # fmt: skip
    """Each image gets a score of being known, from its cosines with the classes that are known.

    Args:
        encode: functions of the views `image` and `text`.
        data: a source with `classification()`.
        unknown_share: of its classes, drawn, whose images are the unknown ones; no prompt names these classes.
        outside: `{name, options}` of another source with `classification()`, whose images are the unknown ones instead; then all classes
            of `data` are known, and those of the other must be none of them.
        templates: prompts with "{}" for the class name; empty takes the task's own.
        scale: of cosines in `msp`, `logit` and `energy`; 0 takes the model's learned one.
        temperature: that divides cosines in `mcm`.
        seed: of the classes drawn.

    Returns:
        For the scores `msp` (largest of softmax(scale * cosine)), `logit` (largest cosine), `energy` (log of the sum of
        exp(scale * cosine)) and `mcm` (largest of softmax(cosine / temperature)): `<score>/auroc`, that of `msp` being the primary one,
        `auroc_pessimistic`, where an unknown image of the same score as a known one stands above it, `tie_rate`, the share of the
        pairs of both that are equal, `aupr/{in,out}` with the known or the unknown as positive, and `fpr95/{id_positive,ood_positive}`:
        the share of unknown images accepted where 95% of the known are, and of known ones rejected where 95% of the unknown are.
        `accuracy@1` of the known; `temperature/{logit_scale,mcm}`; and `count/{classes,known,unknown}`.

    Raises:
        ConfigError: an option out of range, or a source that cannot be made.
        ValueError: fewer than two known classes or no image on one side, an unknown class whose name a known one has, and what
            zero-shot classification refuses.

    Source: Hendrycks and Gimpel 2017, arXiv:1610.02136; Liu et al. 2020, arXiv:2010.03759; Ming et al. 2022, arXiv:2211.13445.
    """
    if not (0 < unknown_share < 1 and scale >= 0 and temperature > 0):
        raise ConfigError(f"{KEY}: unknown_share {unknown_share}, scale {scale}, temperature {temperature}; see what each may be.")
    similarity, labels, rows = zeroshot.similarities(encode, data, templates)
    scale, known = scale or float(encode.logit_scale), np.arange(similarity.shape[1])
    if outside:
        strange = metrics.scores(_outside(encode, outside, data.classification().class_names), rows)
    else:
        known = _known(len(known), unknown_share, seed)
        strange = similarity[~np.isin(labels, known)]
    inside = np.isin(labels, known)
    cosines = np.concatenate([similarity[inside], strange])[:, known].astype(np.float64)
    positive = np.arange(len(cosines)) < np.count_nonzero(inside)
    if positive.all() or not positive.any() or len(known) < 2:
        raise ValueError(f"{positive.sum()} known images, {(~positive).sum()} unknown, {len(known)} known classes; need 1, 1 and 2.")
    found = scores(cosines, scale, temperature)
    values = {
        f"{name}/{key}": value for name, score in found.items() for key, value in detection(score[positive], score[~positive]).items()
    }
    values["accuracy@1"] = float(np.mean(known[cosines[positive].argmax(axis=1)] == labels[inside]))
    values |= {"temperature/logit_scale": float(scale), "temperature/mcm": float(temperature), "count/classes": float(len(known))}
    values |= {"count/known": float(positive.sum()), "count/unknown": float((~positive).sum())}
    items = np.stack([found["msp"], positive], axis=1)
    return Evaluation("msp/auroc", values, len(positive), items=items, statistic="auroc")


def scores(cosines: np.ndarray, scale: float, temperature: float) -> dict[str, np.ndarray]:
    """How known each row looks, more being more so [N]; softmaxes as their log odds, an increasing map that does not round to 1.

    Args:
        cosines: with the known classes [N C].
        scale: multiplies them.
        temperature: divides them in `mcm`.
    """
    return {
        "msp": _log_odds(scale * cosines),
        "logit": cosines.max(axis=1),
        "energy": logsumexp(scale * cosines, axis=1),
        "mcm": _log_odds(cosines / temperature),
    }


def detection(inside: np.ndarray, outside: np.ndarray) -> dict[str, float]:
    """Metrics of telling `inside` [N] from `outside` [M] by scores that should be higher inside; see `ood`."""
    ordered = np.sort(outside)
    below, not_above = (np.searchsorted(ordered, inside, side=side) / len(ordered) for side in ("left", "right"))
    return {
        "auroc": auroc(_labelled(inside, outside)),
        "auroc_pessimistic": float(below.mean()),
        "tie_rate": float((not_above - below).mean()),
        "aupr/in": _aupr(inside, outside),
        "aupr/out": _aupr(-outside, -inside),
        "fpr95/id_positive": fpr_at(inside, outside),
        "fpr95/ood_positive": fpr_at(-outside, -inside),
    }


def fpr_at(positive: np.ndarray, negative: np.ndarray, recall: float = 0.95) -> float:
    """Share of negatives that score at least the highest threshold at which that share of the positives does."""
    ordered = np.sort(positive)[::-1]
    first = np.flatnonzero(np.arange(1, len(ordered) + 1) / len(ordered) >= recall)[0]
    return float(np.mean(negative >= ordered[first]))


def _labelled(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Scores with 1 or 0 beside them [N 2]."""
    return np.stack([np.concatenate([positive, negative]), np.repeat([1.0, 0.0], [len(positive), len(negative)])], axis=1)


def _aupr(positive: np.ndarray, negative: np.ndarray) -> float:
    """Trapezoids under the precision-recall curve, as OpenOOD takes them; average precision, which steps, is another number."""
    score, label = _labelled(positive, negative).T
    precision, recall, _ = precision_recall_curve(label, score)
    return float(auc(recall, precision))


def _log_odds(logits: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)) of the largest probability p [N]: that of the largest logit against all others."""
    rows, best = np.arange(len(logits)), logits.argmax(axis=1)
    others = logits.copy()
    others[rows, best] = -np.inf
    return logits[rows, best] - logsumexp(others, axis=1)


def _known(classes: int, share: float, seed: int) -> np.ndarray:
    """Classes that stay known, in their order."""
    return np.sort(np.random.default_rng(seed).permutation(classes)[max(1, round(share * classes)) :])


def _outside(encode: Mapping[str, Callable], entry: Mapping, names: Sequence[str]) -> np.ndarray:
    """Unit rows of the images of another source."""
    task = make_source(ConfigDict(entry), f"{KEY}.outside", ChainMap(SOURCES, EVAL_SETS)).classification()
    if shared := sorted(set(names) & set(task.class_names)):
        raise ValueError(f"{len(shared)} classes of {KEY}.outside are known: {', '.join(shared[:5])}; name a source with other classes.")
    return metrics.unit(encode["image"](task.images), "outside embeddings")
