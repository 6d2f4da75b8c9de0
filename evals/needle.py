"""Finding one sentence in long texts, by how long the texts are and how far down it stands."""

from collections.abc import Callable, Mapping

import numpy as np

from evals import controls as lexical
from evals import metrics, ranked
from evals.evaluation import Evaluation

DEPTHS = 10  # parts of a text that are told apart


def needle(
    encode: Mapping[str, Callable], data, *, query: str = "query", passage: str = "passage", controls: tuple[str, ...] = ()
) -> Evaluation:
    """Each question ranks all texts of its length by cosine; right if the text that answers it comes first.

    With one relevant text this is nDCG@1. A model that cuts its inputs can be right by more than chance only where the sentence stands
    before the cut: on texts cut to a share s, on s + (1 - s) / documents of them. Bag of words reads everything and finds nearly all.

    Args:
        encode: functions of the views.
        data: a set with `needles()`.
        query: the view that reads the questions.
        passage: the view that reads the texts.
        controls: what ranks the same texts beside the model: `bag_of_words`, `bm25`.

    Returns:
        `accuracy` (primary), the mean over lengths, `accuracy/<length>` in tokens and `accuracy/depth_<d>`, d tenths down; each with its
        `_pessimistic` double, in which ties go against the right text; `tie_rate`; `accuracy_chance`; the same of each control under
        `<control>/`; `count/{queries,texts,lengths}`. The gallery has both at once: `needle_{lengths,accuracy,count}`.

    Raises:
        ConfigError: an unknown control.
        ValueError: no task, answers that do not fit, or embeddings that are not finite.

    Source: Zhu et al. 2024 (LongEmbed), arXiv:2404.12096.
    """
    lexical.check(controls)
    tasks = data.needles()
    _check(tasks)
    scored = {"": [_places(task, _cosines(encode, task, query, passage)) for task in tasks]}
    for name in controls:
        scored[f"{name}/"] = [_places(task, lexical.scorer(name, task.queries, task.corpus)) for task in tasks]
    values = {f"{prefix}{key}": value for prefix, found in scored.items() for key, value in summary(tasks, found).items()}
    values["accuracy_chance"] = float(np.mean([1 / len(task.corpus) for task in tasks]))
    count = sum(len(task.queries) for task in tasks)
    values |= {
        "count/queries": float(count),
        "count/texts": float(sum(len(task.corpus) for task in tasks)),
        "count/lengths": float(len(tasks)),
    }
    # Lengths count alike, whatever their numbers of questions.
    items = np.concatenate([(place.reference == 0) * (count / len(tasks) / len(place.reference)) for place in scored[""]])
    return Evaluation("accuracy", values, count, _grid(tasks, scored[""]), items)


def summary(tasks, found: list[ranked.Places]) -> dict[str, float]:
    """Shares of questions whose text comes first, under both rules for ties."""
    tied = np.concatenate([place.reference != place.pessimistic for place in found])
    depth, out = np.concatenate([_tenth(task.depth) for task in tasks]), {"tie_rate": float(tied.mean())}
    for rule, suffix in enumerate(("", "_pessimistic")):
        hits = [place[rule] == 0 for place in found]
        each = {f"accuracy{suffix}/{task.length}": float(hit.mean()) for task, hit in zip(tasks, hits, strict=True)}
        out |= {f"accuracy{suffix}": float(np.mean(list(each.values())))} | each
        out |= {f"accuracy{suffix}/depth_{d}": float(np.concatenate(hits)[depth == d].mean()) for d in np.unique(depth).tolist()}
    return out


def _cosines(encode: Mapping[str, Callable], task, query: str, passage: str) -> Callable[[np.ndarray], np.ndarray]:
    queries = metrics.unit(encode[query](task.queries), f"query embeddings of length {task.length}")
    corpus = metrics.unit(encode[passage](task.corpus), f"passage embeddings of length {task.length}")
    return lambda rows: metrics.scores(queries[rows], corpus)


def _places(task, score: Callable[[np.ndarray], np.ndarray]) -> ranked.Places:
    """Of the one right text of each question; texts that tie stand in their order in the reference rule, the later ones first."""
    pairs = np.stack([np.arange(len(task.queries)), task.right], axis=1)
    found = ranked.judged(pairs, len(task.queries), len(task.corpus))
    return ranked.places(score, found, ranked.name_order(range(len(task.corpus))))


def _tenth(depth: np.ndarray) -> np.ndarray:
    return np.minimum((DEPTHS * np.asarray(depth)).astype(np.int64), DEPTHS - 1)


def _grid(tasks, found: list[ranked.Places]) -> dict[str, np.ndarray]:
    """Accuracy [L 10] by length and depth, NaN where no question is, and questions in each cell."""
    count, right = np.zeros((2, len(tasks), DEPTHS))
    for row, (task, place) in enumerate(zip(tasks, found, strict=True)):
        np.add.at(count[row], _tenth(task.depth), 1)
        np.add.at(right[row], _tenth(task.depth), place.reference == 0)
    accuracy = np.divide(right, count, out=np.full_like(right, np.nan), where=count > 0)
    return {
        "needle_lengths": np.array([task.length for task in tasks]),
        "needle_accuracy": accuracy,
        "needle_count": count.astype(np.int64),
    }


def _check(tasks) -> None:
    if not tasks:
        raise ValueError("there is no length to measure; set options.lengths of the set in config.evals.<label>.data.")
    if len({task.length for task in tasks}) < len(tasks):
        raise ValueError(f"lengths are {[task.length for task in tasks]}; each may stand once.")
    for task in tasks:
        if not len(task.queries) == len(task.right) == len(task.depth) or not len(task.queries):
            raise ValueError(
                f"{len(task.queries)} questions of length {task.length} have {len(task.right)} answers and {len(task.depth)} depths; "
                "each needs one of both."
            )
