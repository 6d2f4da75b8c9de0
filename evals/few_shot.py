"""Classification learnt from a few examples of each class, several times over: how MTEB scores its classification tasks."""

from collections.abc import Callable, Mapping

import numpy as np
from sklearn.metrics import f1_score

from core.config import ConfigError
from evals import metrics, probes
from evals.evaluation import Evaluation


def few_shot(
    encode: Mapping[str, Callable], data, *, view: str = "text", shots: int = 8, draws: int = 10, iterations: int = 100, seed: int = 42
) -> Evaluation:
    """Logistic regression (C = 1) learnt from some examples of each class and measured on all of `test`; the mean over draws.

    Args:
        encode: functions of the views; their rows are taken as they are. Of `train` only what is drawn is encoded.
        data: a set with `probe()`.
        view: that reads its values.
        shots: examples of a class; one that has fewer gives all.
        draws: of examples.
        iterations: of L-BFGS, at most: at MTEB's 100 it may stop before it has converged.
        seed: of the draws.

    Returns:
        `accuracy@1` (primary) and `f1_macro`, means over the draws, and their deviations under `std/`; `accuracy@1_chance`, the share of
        the class most frequent in training; and `count/{classes,train,test,unconverged}`, `train` being the examples ever drawn.

    Raises:
        ConfigError: an option under 1.
        ValueError: labels that do not fit, one class alone, a class without a training example, or embeddings that are not finite.

    Source: MTEB 2.26; Muennighoff et al. 2023, arXiv:2210.07316.
    """
    if min(shots, draws, iterations) < 1:
        raise ConfigError(f"config.evals.<label>.options: shots {shots}, draws {draws}, iterations {iterations}; set them to 1 or more.")
    task = data.probe()
    labels = probes.labels_of(task)
    chosen = sample(labels["train"], shots, draws, seed)
    used = np.unique(np.concatenate(chosen))
    train = metrics.check_rows(encode[view]([task.train.values[i] for i in used]), "train embeddings")
    test = metrics.check_rows(encode[view](task.test.values), "test embeddings")
    right, f1, unconverged = [], [], 0
    for rows in chosen:
        part = probes.Part(train[np.searchsorted(used, rows)], labels["train"][rows])
        model = probes.logistic_regression(part, 1.0, iterations=iterations)
        found = model.predict(test)
        right.append(found == labels["test"])
        f1.append(f1_score(labels["test"], found, average="macro"))
        unconverged += int(model.n_iter_[0] >= iterations)
    right = np.array(right, np.float64)  # [draws, N]
    values = {"accuracy@1": right.mean(), "std/accuracy@1": right.mean(axis=1).std(), "f1_macro": np.mean(f1), "std/f1_macro": np.std(f1)}
    values["accuracy@1_chance"] = probes.majority_share(labels["train"], labels["test"])
    counts = {"classes": len(np.unique(labels["train"])), "train": len(used), "test": len(test), "unconverged": unconverged}
    values |= {f"count/{name}": number for name, number in counts.items()}
    return Evaluation("accuracy@1", {name: float(value) for name, value in values.items()}, len(test), items=right.mean(axis=0))


def sample(labels: np.ndarray, shots: int, draws: int, seed: int) -> list[np.ndarray]:
    """Rows of each draw [draws, n]: the first of each class in an order that every draw shuffles further, each time by the same seed."""
    order, out = np.arange(len(labels)), []
    for _ in range(draws):
        np.random.RandomState(seed).shuffle(order)
        first = np.concatenate([np.flatnonzero(labels[order] == label)[:shots] for label in np.unique(labels)])
        out.append(order[np.sort(first)])
    return out
