"""Ranking and classification metrics by count, with stated tie rules.

Scores are dot products taken in float64 and rounded to float32: two equal candidates then tie whichever BLAS kernel saw
them (a float32 product may differ in the last bit between the body and the edge of a matrix), and a tie means "equal in
float32" as it does for the tools these metrics are compared with. Embeddings are ranked on the devices (`retrieval/exact.py`), all
else is numpy; only a block of scores is held at once.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from retrieval import exact

PROBABILITY_SCALE = 100.0  # fixed by the protocol; the learned scale would make probabilities of two models incomparable
BLOCK_ENTRIES = 1 << 22  # scores held at once: 32 MiB in float64


class Ranks(NamedTuple):
    """Place of each query's best relevant candidate, counted from 0: ties for it, or (pessimistic) against it."""

    reference: np.ndarray
    pessimistic: np.ndarray


def check_rows(rows: np.ndarray, name: str) -> np.ndarray:
    """The rows as a float array [N d].

    Raises:
        ValueError: another rank, or values that are not finite; names the rows. (A NaN score compares false with
            everything and would count as rank 0: a broken model would look perfect.)
    """
    rows = np.asarray(rows)
    if rows.ndim != 2:
        raise ValueError(f"{name} has shape {rows.shape}; embeddings are [N d].")
    _refuse(~np.isfinite(rows).all(axis=1), f"{name}: values that are not finite")
    return rows


def unit(rows: np.ndarray, name: str) -> np.ndarray:
    """Rows scaled to length 1, float64.

    Raises:
        ValueError: values that are not finite, or a row of length 0; names the rows.
    """
    rows = check_rows(rows, name).astype(np.float64)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    _refuse(length[:, 0] == 0, f"{name}: length 0, so no direction,")
    return rows / length


def scores(queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Dot products [N M], taken in float64 and rounded to float32; for a block of rows, not for a whole corpus."""
    return (np.asarray(queries, np.float64) @ np.asarray(candidates, np.float64).T).astype(np.float32)


def check_unit(rows: np.ndarray, name: str) -> np.ndarray:
    """The rows as they are: what `unit` refuses is refused, but nothing of their size is made, so that a million may be checked.

    Raises:
        ValueError: values that are not finite, or a row of length 0; names the rows.
    """
    rows, step = np.asarray(rows), max(1, BLOCK_ENTRIES // max(1, np.shape(rows)[-1]))
    check_rows(rows[:1], name)
    length = np.concatenate([np.linalg.norm(rows[start : start + step], axis=1) for start in range(0, len(rows), step)])
    _refuse(~np.isfinite(length), f"{name}: values that are not finite")
    _refuse(length == 0, f"{name}: length 0, so no direction,")
    return rows


def cosines(queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """`scores` of unit rows [N M] for rows of any length; makes nothing of the candidates' size but the scores."""
    step = max(1, BLOCK_ENTRIES // max(1, candidates.shape[1]))
    wide = unit(queries, "queries")
    blocks = (candidates[start : start + step] for start in range(0, len(candidates), step))
    return np.concatenate([scores(wide, unit(block, "candidates")) for block in blocks], axis=1)


def pair_scores(queries: np.ndarray, candidates: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Score of each pair [P 2] of a query's and a candidate's row, float32 [P]; rounded as `scores` are."""
    step = max(1, BLOCK_ENTRIES // max(1, queries.shape[1]))
    blocks = [pairs[start : start + step] for start in range(0, max(len(pairs), 1), step)]
    wide = lambda rows: np.asarray(rows, np.float64)
    return np.concatenate([np.einsum("pd,pd->p", wide(queries[own[:, 0]]), wide(candidates[own[:, 1]])) for own in blocks]).astype(
        np.float32
    )


def ranks(queries: np.ndarray, candidates: np.ndarray, relevant: np.ndarray, **sizes: int) -> Ranks:
    """Counts, for each query, the candidates that are not relevant and score above its best relevant one.

    Args:
        queries: rows [N d]; with unit rows the score is the cosine.
        candidates: rows [M d].
        relevant: pairs [P 2] of (query, candidate); any number for a query from one up, repeats are harmless.
        sizes: `query_rows` and `block_rows` of `retrieval.exact.count`.

    Returns:
        `reference` counts candidates with a greater score, `pessimistic` those with a greater or equal one.

    Raises:
        ValueError: a query without a relevant candidate, a pair out of range, or values that are not finite.

    Source: Karpathy and Fei-Fei 2015 protocol in count form; one owner per caption is the case of one pair per caption.
    """
    queries, candidates = check_rows(queries, "queries"), check_rows(candidates, "candidates")
    pairs = _check_pairs(relevant, len(queries), len(candidates))
    starts = np.flatnonzero(np.diff(pairs[:, 0], prepend=-1))  # every query owns at least one pair
    best = np.maximum.reduceat(pair_scores(queries, candidates, pairs), starts)
    found = exact.count(queries, candidates, table(pairs[:, 0], pairs[:, 1], len(queries), -1), best[:, None], **sizes)
    return Ranks(found.greater[:, 0], (found.greater + found.tied)[:, 0])


def table(query: np.ndarray, values: np.ndarray, queries: int, fill) -> np.ndarray:
    """Values of pairs sorted by query as rows [Q R], one for each query, filled up at their ends."""
    place = np.arange(len(query)) - np.searchsorted(query, query)
    out = np.full((queries, place.max(initial=0) + 1), fill, np.asarray(values).dtype)
    out[query, place] = values
    return out


def hit_rate(rank: np.ndarray, k: int) -> float:
    """Share of queries with a relevant candidate among the first k (not the share of relevant candidates found)."""
    return float(np.mean(rank < k))


def chance(relevant: np.ndarray, queries: int, candidates: int, k: int) -> float:
    """Expected `hit_rate` of a random order: the mean over queries of 1 - C(M - m, k) / C(M, k)."""
    owned = np.bincount(np.unique(relevant, axis=0)[:, 0], minlength=queries)
    k = min(k, candidates)
    miss = {m: math.comb(candidates - m, k) / math.comb(candidates, k) for m in set(owned.tolist())}
    return float(np.mean([1 - miss[m] for m in owned.tolist()]))


def retrieval_metrics(found: Ranks, ks: Sequence[int], prefix: str) -> dict[str, float]:
    """Recall at each k in both tie modes, the share of tied queries, and ranks counted from 1.

    Args:
        found: ranks of all queries of one direction.
        ks: cut-offs.
        prefix: the direction, for example `img2txt`.
    """
    reference, pessimistic = found
    out = {f"{prefix}/recall@{k}": hit_rate(reference, k) for k in ks}
    out |= {f"{prefix}/recall@{k}_pessimistic": hit_rate(pessimistic, k) for k in ks}
    out[f"{prefix}/median_rank"] = float(math.floor(np.median(reference)) + 1)
    out[f"{prefix}/mean_rank"] = float(np.mean(reference) + 1)
    out[f"{prefix}/tie_rate"] = float(np.mean(reference != pessimistic))
    return out


def rsum(*directions: Ranks) -> float:
    """Sum of recall@1, @5 and @10 over the directions, as percentages (two directions: at most 600)."""
    return float(sum(100 * hit_rate(found.reference, k) for found in directions for k in (1, 5, 10)))


def class_weights(prompts: np.ndarray) -> np.ndarray:
    """One unit row a class from its prompts' embeddings [C T d]: normalise each, average, normalise again.

    Source: Radford et al. 2021, arXiv:2103.00020. Averaging before the first norm lets long embeddings outvote the rest;
    without the second, classes whose prompts agree would win by length.
    """
    classes, templates, width = prompts.shape
    each = unit(prompts.reshape(classes * templates, width), "class prompts")
    return unit(each.reshape(classes, templates, width).mean(axis=1), "class weights")


def classification_metrics(similarity: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy and recall of the class with the highest cosine; among equals the lowest index wins.

    Args:
        similarity: cosines [N C], float32.
        labels: class of each row [N].

    Returns:
        `accuracy@1`, `accuracy@5` (absent under 5 classes), `accuracy@1_pessimistic` (a tie is a miss), `tie_rate`,
        `mean_per_class_recall` over the classes that occur, and `cross_entropy` in nats of softmax(100 * cosine).
    """
    own = np.take_along_axis(similarity, labels[:, None], axis=1)
    before = np.arange(similarity.shape[1]) < labels[:, None]
    rank = np.sum((similarity > own) | ((similarity == own) & before), axis=1)
    pessimistic = np.sum(similarity >= own, axis=1) - 1
    out = {f"accuracy@{k}": hit_rate(rank, k) for k in (1, 5) if k <= similarity.shape[1]}
    out["accuracy@1_pessimistic"] = hit_rate(pessimistic, 1)
    out["tie_rate"] = float(np.mean(np.sum(similarity == own, axis=1) > 1))
    recall = per_class_recall(rank == 0, labels, similarity.shape[1])
    out["mean_per_class_recall"] = float(np.nanmean(recall))
    out["cross_entropy"] = float(np.mean(-np.log(np.take_along_axis(probabilities(similarity), labels[:, None], axis=1))))
    return out


def per_class_recall(right: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Share of each class's rows that are right [C]; NaN for a class that does not occur."""
    rows = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels, weights=right, minlength=classes)
    return np.divide(hits, rows, out=np.full(classes, np.nan), where=rows > 0)


def probabilities(similarity: np.ndarray) -> np.ndarray:
    """Softmax of 100 * cosine over classes, float64 [N C]; rows sum to 1."""
    logits = PROBABILITY_SCALE * np.asarray(similarity, np.float64)
    logits = np.exp(logits - logits.max(axis=1, keepdims=True))
    return logits / logits.sum(axis=1, keepdims=True)


def _refuse(bad: np.ndarray, what: str) -> None:
    rows = np.flatnonzero(bad)
    if len(rows):
        raise ValueError(f"{what} in rows {', '.join(map(str, rows[:8]))}{', ...' if len(rows) > 8 else ''} ({len(rows)} of {len(bad)}).")


def _check_pairs(relevant: np.ndarray, queries: int, candidates: int) -> np.ndarray:
    pairs = np.unique(np.asarray(relevant, np.int64).reshape(-1, 2), axis=0)  # sorted by query
    if len(pairs) and not (pairs.min() >= 0 and (pairs < (queries, candidates)).all()):
        raise ValueError(f"relevant names pairs outside {queries} queries x {candidates} candidates.")
    _refuse(np.bincount(pairs[:, 0], minlength=queries) == 0, "queries without a relevant candidate")
    return pairs
