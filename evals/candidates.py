"""Picking one out of a list: each query of a source's `candidates()` task has candidates of its own, one of them right."""

from collections.abc import Callable, Mapping

import numpy as np

from evals import controls as lexical
from evals import metrics
from evals.evaluation import Evaluation


def candidates(
    encode: Mapping[str, Callable], data, *, query: str = "image", candidate: str = "text", controls: tuple[str, ...] = ()
) -> Evaluation:
    """Each query takes the candidate of its own list with the highest cosine.

    Where the right candidate stands in a list changes nothing. Reference tools keep it first and let it win ties, so that a constant model
    is always right; the primary metric counts a tie as a miss.

    Args:
        encode: functions of the views.
        data: a set with `candidates()`.
        query: the view that reads the task's queries.
        candidate: the view that reads its candidates.
        controls: what ranks the same texts beside the model: `bag_of_words`, `bm25`.

    Returns:
        `accuracy_pessimistic` (primary) and `mrr_pessimistic`, with ties against the right candidate; `accuracy` and `mrr`, with ties for
        it; their `_chance`; `tie_rate`; the accuracies of each group and their means over groups, `accuracy*/<group>` and
        `accuracy*/groups`; the same of each control under `<control>/`; `count/{queries,candidates,mean_list}`.

    Raises:
        ConfigError: an unknown control, or a control for images.
        ValueError: lists that do not fit the task, or embeddings that are not finite.

    Source: Jiang et al. 2024 (MMEB), TIGER-AI-Lab/VLM2Vec: accuracy with ties for the right one.
    """
    lexical.check(controls)
    task = data.candidates()
    lists = _check_lists(task)
    queries = metrics.unit(encode[query](task.queries), "query embeddings")
    pool = metrics.unit(encode[candidate](task.candidates), "candidate embeddings")
    found = list_ranks(lambda i: metrics.scores(queries[i : i + 1], pool[lists[i]])[0], lists, task.right)
    values = summary(found, task.groups)
    lengths = np.array([len(own) for own in lists])
    values["accuracy_chance"] = float(np.mean(1 / lengths))
    values["mrr_chance"] = float(np.mean([np.mean(1 / np.arange(1, n + 1)) for n in lengths]))
    for name in controls:
        score = lexical.scorer(name, task.queries, task.candidates)
        beside = list_ranks(lambda i, score=score: score(np.array([i]))[0][lists[i]], lists, task.right)
        values |= {f"{name}/{key}": value for key, value in summary(beside, task.groups).items()}
    values |= {"count/queries": float(len(lists)), "count/candidates": float(len(pool)), "count/mean_list": float(lengths.mean())}
    return Evaluation("accuracy_pessimistic", values, len(lists), items=(found.pessimistic == 0).astype(np.float64))


def list_ranks(score: Callable[[int], np.ndarray], lists: list[np.ndarray], right: np.ndarray) -> metrics.Ranks:
    """Place of the right candidate in each query's list, counted from 0, under both rules for ties.

    Args:
        score: float32 scores of one query's list, in its order.
        lists: indices of each query's candidates.
        right: index of the right one, which is in the list.
    """
    places = np.zeros((len(lists), 2), np.int64)
    for i, own in enumerate(lists):
        scores = score(i)
        mine = scores[own == right[i]]
        places[i] = np.sum(scores > mine), np.sum(scores >= mine) - 1
    return metrics.Ranks(places[:, 0], places[:, 1])


def summary(found: metrics.Ranks, groups) -> dict[str, float]:
    """Accuracy and mean reciprocal rank under both rules for ties, the share of tied queries, and accuracy by group."""
    out = {"tie_rate": float(np.mean(found.reference != found.pessimistic))}
    names, number = np.unique(np.asarray(groups, str), return_inverse=True)
    for rank, suffix in zip(found, ("", "_pessimistic"), strict=True):
        out |= {f"accuracy{suffix}": float(np.mean(rank == 0)), f"mrr{suffix}": float(np.mean(1 / (rank + 1)))}
        each = [float(np.mean(rank[number == i] == 0)) for i in range(len(names))]
        out |= {f"accuracy{suffix}/{name}": value for name, value in zip(names.tolist(), each, strict=True)}
        out |= {f"accuracy{suffix}/groups": float(np.mean(each))} if each else {}
    return out


def _check_lists(task) -> list[np.ndarray]:
    right, lists = np.asarray(task.right), [np.asarray(own) for own in task.lists]
    if not len(task.queries) == len(lists) == len(right) or not lists:
        raise ValueError(f"{len(task.queries)} queries have {len(lists)} lists and {len(right)} right candidates; each needs one of both.")
    if len(task.groups) not in (0, len(lists)):
        raise ValueError(f"{len(lists)} queries have {len(task.groups)} groups; each needs one, or none has.")
    short = [i for i, own in enumerate(lists) if len(own) < 2]
    strange = [i for i, own in enumerate(lists) if len(own) and (own.min() < 0 or own.max() >= len(task.candidates))]
    twice = [i for i, own in enumerate(lists) if len(np.unique(own)) < len(own)]
    absent = [i for i, own in enumerate(lists) if right[i] not in own]
    for rows, what in ((short, "has fewer than two candidates"), (strange, "names candidates that do not exist"),
                       (twice, "names a candidate twice"), (absent, "lacks its right candidate")):  # fmt: skip
        if rows:
            raise ValueError(f"the list of query {rows[0]} {what}, as do {len(rows) - 1} others; mend the set.")
    return lists
