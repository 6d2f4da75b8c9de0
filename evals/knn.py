"""Classification by the nearest training examples: what a frozen embedding space knows of classes, with nothing to tune."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from core.config import ConfigError
from evals import metrics, probes
from evals.evaluation import Evaluation

KEY = "config.evals.<label>.options"


def knn(
    encode: Mapping[str, Callable], data, *, view: str = "text", k: int = 20, ks: tuple[int, ...] = (10, 20, 100, 200),
    temperature: float = 0.07, vote: str = "weighted", leave_one_out: bool = False,
) -> Evaluation:  # fmt: skip
    """The k nearest training rows vote on the class of each test row, by cosine.

    Among neighbours that are equally near the first rows of the training set vote, among classes with equal votes the first wins.

    Args:
        encode: functions of the views.
        data: a set with `probe()`; with `leave_one_out` one with `labelled()`.
        view: that reads its values.
        k: neighbours of the primary metric.
        ks: further numbers of neighbours.
        temperature: a neighbour of cosine s has a vote of exp(s / temperature).
        vote: `weighted`; or `uniform`, a vote each, and of equally many the greatest sum of cosines.
        leave_one_out: each row is classified by all others of the same set.

    Returns:
        `k<k>/accuracy@1` for each k, that of `k` being the primary one; `k<k>/accuracy@5` (absent under 5 classes), where only a class
        with a neighbour can be found; `k<k>/accuracy@1_pessimistic`, where every tie of neighbours or votes goes against the right
        class, and `k<k>/tie_rate`, the share of rows where votes for the first place, or neighbours of several classes for the last,
        are equal in float32; `mean_per_class_recall` of the primary k; `accuracy@1_chance`, the share of the class most frequent in
        training; and `count/{classes,train,test}`.

    Raises:
        ConfigError: an unknown vote, a temperature not above 0, or a k under 1.
        ValueError: more neighbours than training rows, labels that do not fit, one class alone, a class without a training example, or
            embeddings that are not finite.

    Source: Caron et al. 2021, arXiv:2104.14294 (DINO), after Wu et al. 2018.
    """
    ks = sorted({k, *ks})
    if vote not in ("weighted", "uniform") or not temperature > 0 or ks[0] < 1:
        raise ConfigError(f"{KEY}: vote {vote!r}, temperature {temperature}, k {ks}; set weighted or uniform, above 0, and 1 or more.")
    train, test = _parts(encode[view], data, leave_one_out)
    if ks[-1] > len(train.rows) - leave_one_out:
        raise ValueError(f"{ks[-1]} neighbours of {len(train.rows) - leave_one_out} training rows; set {KEY}.k and .ks to fewer.")
    # Cosines below 1 / (2k + 1) of a vote cannot outvote anyone, but decide between equally many.
    weigh = (lambda s, top, k: 1 + s / (2 * k + 1)) if vote == "uniform" else (lambda s, top, k: np.exp((s - top) / temperature))
    found = [_classify(block, own, train.labels, ks, weigh) for block, own in _blocks(train, test, leave_one_out)]
    hits = {k: np.concatenate([one[k] for one in found]) for k in ks}  # [N 4]: at 1, at 5, pessimistic, tied
    classes = int(train.labels.max()) + 1
    values = {}
    for number, table in hits.items():
        names = ["accuracy@1", "accuracy@5", "accuracy@1_pessimistic", "tie_rate"]
        values |= {f"k{number}/{name}": float(column.mean()) for name, column in zip(names, table.T, strict=True)}
        if len(np.unique(train.labels)) < 5:
            del values[f"k{number}/accuracy@5"]
    right = hits[k][:, 0].astype(np.float64)
    values["mean_per_class_recall"] = float(np.nanmean(metrics.per_class_recall(right, test.labels, classes)))
    values["accuracy@1_chance"] = probes.majority_share(train.labels, test.labels)
    values |= {"count/classes": float(len(np.unique(train.labels))), "count/train": float(len(train.rows)), "count/test": float(len(right))}
    return Evaluation(f"k{k}/accuracy@1", values, len(right), items=right)


def _parts(encode: Callable, data, leave_one_out: bool) -> tuple[probes.Part, probes.Part]:
    """Unit rows to learn from and to classify."""
    if not leave_one_out:
        parts = probes.encode_parts(encode, data.probe())
        return tuple(probes.Part(metrics.unit(parts[name].rows, f"{name} embeddings"), parts[name].labels) for name in ("train", "test"))
    task = data.labelled()
    labels = probes.check_labels(task, "labelled")
    if (alone := np.flatnonzero(np.bincount(labels) == 1)).size:
        raise ValueError(f"classes {', '.join(map(str, alone[:8]))} have one row each, and no other to be found by ({alone.size} in all).")
    part = probes.Part(metrics.unit(encode(task.values), "embeddings"), labels)
    return part, part


def _blocks(train: probes.Part, test: probes.Part, leave_one_out: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cosines of some test rows with all training rows, and the classes of the former."""
    step = max(1, metrics.BLOCK_ENTRIES // len(train.rows))
    for start in range(0, len(test.rows), step):
        block = metrics.scores(test.rows[start : start + step], train.rows)
        if leave_one_out:
            block[np.arange(len(block)), start + np.arange(len(block))] = -np.inf
        yield block, test.labels[start : start + step]


def _classify(block: np.ndarray, own: np.ndarray, labels: np.ndarray, ks: list[int], weigh: Callable) -> dict[int, np.ndarray]:
    """For each k whether the right class is first, among the first five, and first against all ties, and whether there are ties [b 4]."""
    near, classes = nearest(block, ks[-1]), int(labels.max()) + 1
    similarity = np.take_along_axis(block, near, axis=1).astype(np.float64)
    out = {}
    for k in ks:
        votes = _votes(labels[near[:, :k]], weigh(similarity[:, :k], similarity[:, :1], k), classes)
        mine = votes[np.arange(len(own)), own][:, None]
        rank = np.sum((votes > mine) | ((votes == mine) & (np.arange(classes) < own[:, None])), axis=1)
        sure, tied = (votes >= mine).sum(axis=1) == 1, (votes == votes.max(axis=1, keepdims=True)).sum(axis=1) > 1
        last = similarity[:, k - 1]
        for row in np.flatnonzero((block >= last[:, None]).sum(axis=1) > k):  # who the last neighbour is, is open
            sure[row], matters = _worst(block[row].astype(np.float64), last[row], labels, own[row], k, weigh)
            tied[row] |= matters
        out[k] = np.stack([rank == 0, (rank < min(5, k)) & (mine[:, 0] > 0), sure, tied], axis=1)
    return out


def nearest(block: np.ndarray, k: int) -> np.ndarray:
    """Indices of the k largest of each row, the largest first and equal ones in their order [b k]."""
    if k == block.shape[1]:
        return np.argsort(-block, axis=1, kind="stable")
    found = np.sort(np.argpartition(-block, k - 1, axis=1)[:, :k], axis=1)
    values = np.take_along_axis(block, found, axis=1)
    for row in np.flatnonzero((block >= values.min(axis=1, keepdims=True)).sum(axis=1) > k):  # any k of the equal ones may have come
        found[row] = np.sort(np.argsort(-block[row], kind="stable")[:k])
    order = np.argsort(-np.take_along_axis(block, found, axis=1), axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1)


def _votes(labels: np.ndarray, weights: np.ndarray, classes: int) -> np.ndarray:
    """Sum of weights by class [b C], rounded to float32 so that equal votes tie in whatever order they were added."""
    place = labels + classes * np.arange(len(labels))[:, None]
    votes = np.bincount(place.ravel(), weights.ravel(), len(labels) * classes)
    return votes.reshape(len(labels), classes).astype(np.float32)


def _worst(similarity: np.ndarray, last: float, labels: np.ndarray, own: int, k: int, weigh: Callable) -> tuple[bool, bool]:
    """Whether a class wins with the fewest of the equally near last neighbours and each rival with the most, and if they are of several."""
    nearer, equal, classes = similarity > last, similarity == last, int(labels.max()) + 1
    top, places = similarity.max(), k - np.count_nonzero(nearer)
    votes = np.bincount(labels[nearer], weigh(similarity[nearer], top, k), classes)
    open_to, vote = np.bincount(labels[equal], minlength=classes), weigh(last, top, k)
    rivals = np.delete(votes + np.minimum(open_to, places) * vote, own).astype(np.float32)
    fewest = votes[own] + max(0, places - (open_to.sum() - open_to[own])) * vote
    return bool(np.float32(fewest) > rivals.max()), bool(np.count_nonzero(open_to) > 1)
