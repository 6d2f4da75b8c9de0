"""Classification by a linear layer on frozen embeddings: multinomial logistic regression, its strength chosen on validation rows."""

import logging
from collections.abc import Callable, Mapping

import numpy as np
from sklearn.linear_model import LogisticRegression

from core.config import ConfigError
from evals import calibration, metrics, probes
from evals.evaluation import Evaluation

log = logging.getLogger(__name__)

STEPS = 96  # the grid is 10^(-6 + i / 8) for i from 0 to 96


def linear_probe(
    encode: Mapping[str, Callable], data, *, view: str = "text", sweep: bool = True, inverse_strength: float = 0.316,
    validation_share: float = 0.2, iterations: int = 1000, tolerance: float = 1e-4, seed: int = 0,
) -> Evaluation:  # fmt: skip
    """Logistic regression by L-BFGS, learnt from `train` and measured once on `test`, whose labels no choice sees.

    Minimises the mean cross-entropy + lambda / 2 * |W|^2 with a free bias. The sweep takes the lambda that is most accurate on the
    validation rows and learns again from these and `train` together. Two classes share one row of W, as scikit-learn has it.

    Args:
        encode: functions of the views; their rows are taken as they are, unit length.
        data: a set with `probe()`.
        view: that reads its values.
        sweep: choose lambda by at most 15 fits on a grid from 1e-6 to 1e6, eight steps a decade; else `inverse_strength` counts.
        inverse_strength: scikit-learn's C, which is 1 / (lambda * rows).
        validation_share: of each class of `train` that is kept for the choice, where the set has no validation rows of its own.
        iterations: of L-BFGS, at most.
        tolerance: largest gradient at which it stops.
        seed: of the rows that are kept.

    Returns:
        `accuracy@1` (primary), `accuracy@5` (absent under 5 classes), `mean_per_class_recall`, `cross_entropy` in nats and `ece` of 15
        bins on `test`; `accuracy@1_chance`, the share of the class most frequent in training; `strength/log10_lambda`;
        `validation/accuracy@1` of the choice; and `count/{classes,train,test,fits,unconverged}`.

    Raises:
        ConfigError: an option out of range.
        ValueError: labels that do not fit, one class alone, a class without a training example, or embeddings that are not finite.

    Source: Radford et al. 2021, arXiv:2103.00020, appendix A.3.
    """
    if not (inverse_strength > 0 and 0 < validation_share < 1 and iterations >= 1 and tolerance > 0):
        raise ConfigError(
            f"config.evals.<label>.options: inverse_strength {inverse_strength}, validation_share {validation_share}, iterations "
            f"{iterations}, tolerance {tolerance}; set them above 0, the share under 1."
        )
    parts = probes.encode_parts(encode[view], data.probe())
    chosen, values, fits = parts["train"], {}, []
    learn = lambda part, strength: fits.append(fit(part, 1 / (strength * len(part.labels)), iterations=iterations, tolerance=tolerance))
    strength = 1 / (inverse_strength * len(chosen.labels))
    if sweep:
        few, held, chosen = _validation(parts, validation_share, seed)

        def accuracy(i: int) -> float:
            learn(few, 10.0 ** (-6 + i / 8))
            return float(fits[-1].score(held.rows, held.labels))

        best, values["validation/accuracy@1"] = search(accuracy)
        strength = 10.0 ** (-6 + best / 8)
    learn(chosen, strength)
    stopped = sum(model.n_iter_[0] >= iterations for model in fits)
    if fits[-1].n_iter_[0] >= iterations:
        log.warning("the linear probe stopped after %d iterations before it had converged; raise options.iterations", iterations)
    test, classes = parts["test"], len(fits[-1].classes_)
    shown, right = _measure(fits[-1], test)
    values |= shown | {"accuracy@1_chance": probes.majority_share(chosen.labels, test.labels), "strength/log10_lambda": np.log10(strength)}
    counts = {"classes": classes, "train": len(chosen.labels), "test": len(test.labels), "fits": len(fits), "unconverged": stopped}
    values |= {f"count/{name}": number for name, number in counts.items()}
    return Evaluation("accuracy@1", {name: float(value) for name, value in values.items()}, len(right), items=right)


def fit(part: probes.Part, c: float, *, iterations: int = 1000, tolerance: float = 1e-4) -> LogisticRegression:
    """Logistic regression in float64; in float32 the weakest strengths would stop short of a tight tolerance."""
    wide = probes.Part(part.rows.astype(np.float64), part.labels)
    return probes.logistic_regression(wide, c, iterations=iterations, tolerance=tolerance)


def search(score: Callable[[int], float], steps: int = STEPS) -> tuple[int, float]:
    """Place on a grid from 0 to `steps` with the highest score, by halving the way around the best of seven; among equals the first tried.

    Args:
        score: of a place; asked at most 15 times, for each place once.
        steps: a multiple of 16.

    Returns:
        The place, and its score.
    """
    tried = {i: score(i) for i in range(0, steps + 1, 16)}
    for span in (8, 4, 2, 1):
        best = max(tried, key=tried.get)  # dicts keep the order of trials, and max takes the first
        for i in (best - span, best + span):
            if 0 <= i <= steps and i not in tried:
                tried[i] = score(i)
    best = max(tried, key=tried.get)
    return best, tried[best]


def _validation(parts: Mapping[str, probes.Part], share: float, seed: int) -> tuple[probes.Part, probes.Part, probes.Part]:
    """What is learnt from for the choice, what the choice is made on, and both together."""
    train = parts["train"]
    if "validation" not in parts:
        aside = probes.set_aside(train.labels, share, seed)
        return train.take(~aside), train.take(aside), train
    held = parts["validation"]
    return train, held, probes.Part(np.concatenate([train.rows, held.rows]), np.concatenate([train.labels, held.labels]))


def _measure(model: LogisticRegression, test: probes.Part) -> tuple[dict[str, float], np.ndarray]:
    """Metrics of the test rows, and which of them are right [N]."""
    labels = np.searchsorted(model.classes_, test.labels)
    log_probability = model.predict_log_proba(test.rows.astype(np.float64))
    own = np.take_along_axis(log_probability, labels[:, None], axis=1)
    before = np.arange(len(model.classes_)) < labels[:, None]
    rank = np.sum((log_probability > own) | ((log_probability == own) & before), axis=1)
    right = (rank == 0).astype(np.float64)
    values = {f"accuracy@{k}": metrics.hit_rate(rank, k) for k in (1, 5) if k <= len(model.classes_)}
    values["mean_per_class_recall"] = float(np.nanmean(metrics.per_class_recall(right, labels, len(model.classes_))))
    values["cross_entropy"] = float(-own.mean())
    values["ece"] = calibration.ece(np.exp(log_probability), labels)
    return values, right
