"""How far the probabilities of zero-shot classification can be believed, before and after one temperature is fitted."""

from collections.abc import Callable, Mapping

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from core.config import ConfigError
from evals import metrics, zeroshot
from evals.evaluation import Evaluation

BOUNDS = (1e-3, 1e3)  # of a fitted temperature: classes that are all right would want 0, a collapsed model any


def calibration(
    encode: Mapping[str, Callable], data, *, templates=(), scale: float = metrics.PROBABILITY_SCALE, bins: int = 15, seed: int = 0
) -> Evaluation:
    """Expected calibration error of softmax(scale * cosine) over the classes.

    The temperature of each half of the images is the one of least cross-entropy on the other half, so no image is measured with a
    temperature that its own label had a part in.

    Args:
        encode: functions of the views `image` and `text`.
        data: a source with `classification()`.
        templates: prompts with "{}" for the class name; empty takes the task's own.
        scale: multiplies cosines; 0 takes the model's learned one.
        bins: of confidence, equally wide.
        seed: of the halves.

    Returns:
        `ece` (primary) of bins (low, high], `ece_adaptive` of as many bins of equally many images, `brier` from 0 to 2, `cross_entropy`
        in nats, `confidence`, the mean of the largest probability, and `accuracy@1`; but for the last the same under `scaled/` with the
        fitted temperatures, whose geometric mean is `temperature/fitted`; `temperature/logit_scale`; and `count/classes`.

    Raises:
        ConfigError: a scale below 0 or no bin.
        ValueError: a single image, a template without "{}", a label without a class, or embeddings that are not finite.

    Source: Guo et al. 2017, arXiv:1706.04599. Their temperature is what 50 steps of L-BFGS find; here it is the minimum.
    """
    if scale < 0 or bins < 1:
        raise ConfigError(f"config.evals.<label>.options: scale {scale}, bins {bins}; set 0 or more, and 1 or more.")
    similarity, labels, _ = zeroshot.similarities(encode, data, templates)
    scale = scale or float(encode.logit_scale)
    logits = scale * similarity.astype(np.float64)
    values = {**reliability(logits, labels, bins), "accuracy@1": float(np.mean(logits.argmax(axis=1) == labels))}
    if len(labels) < 2:
        raise ValueError("one image cannot be halved to fit a temperature; give two or more.")
    half = np.random.default_rng(seed).permutation(len(labels)) % 2
    fitted = np.array([temperature(logits[half != side], labels[half != side]) for side in (0, 1)])
    values |= {f"scaled/{name}": value for name, value in reliability(logits / fitted[half][:, None], labels, bins).items()}
    values |= {"temperature/fitted": float(np.exp(np.log(fitted).mean())), "temperature/logit_scale": float(scale)}
    return Evaluation("ece", values | {"count/classes": float(logits.shape[1])}, len(labels))


def reliability(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> dict[str, float]:
    """`ece`, `ece_adaptive`, `brier`, `cross_entropy` and `confidence` of softmax(logits) [N C]."""
    log_probability = log_softmax(logits, axis=1)
    probability, own = np.exp(log_probability), np.take_along_axis(log_probability, labels[:, None], axis=1)
    wanted = np.arange(logits.shape[1]) == labels[:, None]
    return {
        "ece": ece(probability, labels, bins),
        "ece_adaptive": adaptive_ece(probability, labels, bins),
        "brier": float(np.mean(np.sum((probability - wanted) ** 2, axis=1))),
        "cross_entropy": float(-own.mean()),
        "confidence": float(probability.max(axis=1).mean()),
    }


def ece(probability: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Sum over bins (low, high] of confidence of the share of rows times |accuracy - mean confidence|; a confidence of 0 is in no bin.

    Args:
        probability: of each class [N C]; of the confidence, the largest, the first class that has it is meant.
        labels: class of each row [N].
        bins: equally wide ones from 0 to 1.

    Source: Naeini et al. 2015; bins as in Guo et al. 2017.
    """
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == labels
    place = np.searchsorted(np.linspace(0, 1, bins + 1)[:-1], confidence, side="left") - 1  # above 1 by rounding: the last bin
    inside = place >= 0
    gap = np.bincount(place[inside], (right - confidence)[inside], bins)
    return float(np.abs(gap).sum() / len(labels))


def adaptive_ece(probability: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """The same with bins of equally many rows, the first ones having one more where they do not divide; empty bins count nothing."""
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == labels
    order = np.lexsort((right, confidence))  # equal confidences in an order that does not depend on that of the rows
    return float(sum(abs((right - confidence)[part].sum()) for part in np.array_split(order, bins)) / len(labels))


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T between 0.001 and 1000 of least cross-entropy of softmax(logits / T), which has a single minimum in 1 / T."""
    rows = np.arange(len(labels))
    loss = lambda log_t: -log_softmax(logits * np.exp(-log_t), axis=1)[rows, labels].mean()
    return float(np.exp(minimize_scalar(loss, bounds=np.log(BOUNDS), method="bounded", options={"xatol": 1e-8}).x))
