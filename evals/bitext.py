"""Bitext mining: each sentence looks up its translation among all sentences of the other language."""

from collections.abc import Callable, Mapping

import numpy as np

from core.config import choose
from evals import bag_of_words, metrics
from evals.evaluation import Evaluation

CONTROLS = {"bag_of_words": bag_of_words.bag_of_words}


def bitext(
    encode: Mapping[str, Callable], data, *, source: str = "text", target: str = "text", controls: tuple[str, ...] = ()
) -> Evaluation:
    """Each source takes the target of the highest cosine, the first among equals; from source to target alone.

    Args:
        encode: functions of the views.
        data: a set with `bitext()`.
        source: the view that reads the sources.
        target: the view that reads the targets.
        controls: what matches the same texts beside the model: `bag_of_words`.

    Returns:
        `f1` (primary), `precision` and `recall` over targets, weighted by how many sources want each, 0 for a target that none takes;
        `accuracy`, the share of sources that take their own, which `recall` equals; `accuracy_pessimistic`, where a tie is a miss;
        `tie_rate`, `accuracy_chance` and `count/{sources,targets}`; the first under `<control>/`.

    Raises:
        ConfigError: an unknown control.
        ValueError: no source, translations that do not exist, or embeddings that are not finite.

    Source: MTEB 2.26, with scikit-learn's weighted averages. A target that many sources take (a hub) lowers F1 more than accuracy.
    """
    rivals = {name: choose(CONTROLS, name, "config.evals.<label>.options.controls") for name in controls}
    task = data.bitext()
    gold = _check_gold(np.asarray(task.gold), len(task.sources), len(task.targets))
    sources = metrics.unit(encode[source](task.sources), "source embeddings")
    targets = metrics.unit(encode[target](task.targets), "target embeddings")
    values, items = _measure(lambda rows: metrics.scores(sources[rows], targets), gold, len(targets))
    values["accuracy_chance"] = 1 / len(targets)
    for name, make in rivals.items():
        beside, _ = _measure(make(task.sources, task.targets), gold, len(targets))
        values |= {f"{name}/{key}": value for key, value in beside.items()}
    values |= {"count/sources": float(len(gold)), "count/targets": float(len(targets))}
    return Evaluation("f1", values, len(gold), items=items)


def _measure(score_rows: Callable[[np.ndarray], np.ndarray], gold: np.ndarray, targets: int) -> tuple[dict[str, float], np.ndarray]:
    """The metrics, and of each source the F1 of the target that it wants, whose mean is the weighted F1."""
    taken, tied = np.empty(len(gold), np.int64), np.empty(len(gold), bool)
    step = max(1, metrics.BLOCK_ENTRIES // targets)
    for start in range(0, len(gold), step):
        rows = np.arange(start, min(start + step, len(gold)))
        block = score_rows(rows)
        taken[rows] = block.argmax(axis=1)
        tied[rows] = np.sum(block == block.max(axis=1, keepdims=True), axis=1) > 1
    right = taken == gold
    values = {"accuracy": float(right.mean()), "accuracy_pessimistic": float((right & ~tied).mean()), "tie_rate": float(tied.mean())}
    return weighted_scores(taken, gold) | values, scores_of_targets(taken, gold)["f1"]


def weighted_scores(taken: np.ndarray, gold: np.ndarray) -> dict[str, float]:
    """`f1`, `precision` and `recall` of each target, averaged with the number of sources that want it as weight.

    Args:
        taken: the target that each source takes [N].
        gold: the target that it should [N].
    """
    return {name: float(part.mean()) for name, part in scores_of_targets(taken, gold).items()}


def scores_of_targets(taken: np.ndarray, gold: np.ndarray) -> dict[str, np.ndarray]:
    """`f1`, `precision` and `recall` of the target that each source wants [N]; a target that many want counts for each of them."""
    size = int(max(taken.max(), gold.max())) + 1
    count = lambda rows: np.bincount(rows, minlength=size)
    hits, chosen, wanted = count(gold[taken == gold]), count(taken), count(gold)
    parts = {
        "f1": 2 * hits / np.maximum(chosen + wanted, 1),
        "precision": hits / np.maximum(chosen, 1),
        "recall": hits / np.maximum(wanted, 1),
    }
    return {name: part[gold] for name, part in parts.items()}


def _check_gold(gold: np.ndarray, sources: int, targets: int) -> np.ndarray:
    if gold.shape != (sources,) or not sources or not np.issubdtype(gold.dtype, np.integer):
        raise ValueError(f"{sources} sources with translations {gold.dtype} of shape {gold.shape}; each needs the index of one.")
    if unknown := np.flatnonzero((gold < 0) | (gold >= targets)).tolist():
        raise ValueError(f"sources {unknown[:8]} name a translation outside the {targets} targets.")
    return gold.astype(np.int64)
