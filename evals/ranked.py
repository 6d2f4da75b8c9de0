"""Metrics of ranked lists with trec_eval's conventions, from the places of the relevant candidates alone.

Only a block of scores is held at once. Candidates are ordered by score, equal scores (in float32) by name, later names first, as
byte strings; `pessimistic` puts whatever ties with a relevant candidate before it. Gains are linear.

Source: trec_eval and pytrec_eval (usnistgov/trec_eval, cvangysel/pytrec_eval).
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from evals import metrics
from retrieval import exact


class Judged(NamedTuple):
    """What is relevant, sorted by query.

    Attributes:
        query: of each relevant pair [P], numbered within the judged queries.
        candidate: of each relevant pair [P].
        grade: of each relevant pair [P], 1 or more.
        queries: index in the task of each judged query [Q]; one may have nothing relevant, and then scores 0.
        candidates: how many there are.
    """

    query: np.ndarray
    candidate: np.ndarray
    grade: np.ndarray
    queries: np.ndarray
    candidates: int


class Places(NamedTuple):
    """Place of each relevant pair in its query's list [P], counted from 0, under the two rules for ties."""

    reference: np.ndarray
    pessimistic: np.ndarray


def judged(relevant: np.ndarray, queries: int, candidates: int) -> Judged:
    """Reads judgements [P 2] or [P 3] of (query, candidate, grade); a missing grade is 1.

    Raises:
        ValueError: another shape, grades that are not whole, pairs out of range or repeated, or no judgement at all.
    """
    rows = np.asarray(relevant)
    if rows.ndim != 2 or rows.shape[1] not in (2, 3) or not len(rows) or (rows != rows.astype(np.int64)).any():
        raise ValueError(f"judgements of shape {rows.shape} and type {rows.dtype}; they are integers [P 2] or [P 3], at least one row.")
    rows = rows.astype(np.int64)
    pairs = rows[:, :2]
    if pairs.min() < 0 or (pairs >= (queries, candidates)).any():
        raise ValueError(f"judgements name pairs outside {queries} queries x {candidates} candidates.")
    if len(np.unique(pairs, axis=0)) < len(pairs):
        raise ValueError("a pair of query and candidate is judged twice; give each pair once.")
    rows = rows[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    names, number = np.unique(rows[:, 0], return_inverse=True)
    grade = rows[:, 2] if rows.shape[1] == 3 else np.ones(len(rows), np.int64)
    kept = grade > 0
    return Judged(number[kept], rows[kept, 1], grade[kept], names, candidates)


def name_order(names: Sequence[str]) -> np.ndarray:
    """Place of each candidate among equal scores [M]: the later name as bytes comes first, "9" before "10"."""
    found = [str(name).encode() for name in names]
    if len(set(found)) < len(found):
        raise ValueError("two candidates share an id; give each its own corpus_ids entry.")
    order = sorted(range(len(found)), key=found.__getitem__, reverse=True)
    return np.argsort(order)


def places(
    score_rows: Callable[[np.ndarray], np.ndarray], found: Judged, tie: np.ndarray, *, block_entries: int = metrics.BLOCK_ENTRIES
) -> Places:
    """Places of the relevant candidates under scores of any kind; those of embeddings are found faster by `embedded_places`.

    Args:
        score_rows: float32 scores [n M] of some queries, given their indices in the task [n].
        found: the judgements.
        tie: place of each candidate among equal scores [M].
        block_entries: scores held at once.

    Raises:
        ValueError: a score that is not a number.
    """
    rows = max(1, block_entries // max(found.candidates, 1))
    bounds = np.searchsorted(found.query, np.arange(len(found.queries) + 1))
    parts = []
    for start in range(0, len(found.queries), rows):
        block = np.asarray(score_rows(found.queries[start : start + rows]), np.float32)
        if np.isnan(block).any():
            raise ValueError(f"scores of queries {start} to {start + len(block) - 1} hold NaN, which ranks nowhere.")
        for row, scores in enumerate(block, start):
            own = slice(bounds[row], bounds[row + 1])
            parts.append(_row_places(scores, found.candidate[own], found.grade[own], tie))
    return Places(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def embedded_places(queries: np.ndarray, corpus: np.ndarray, found: Judged, tie: np.ndarray, **sizes: int) -> Places:
    """Places of the relevant candidates by cosine, counted on the devices a block at a time.

    Args:
        queries: rows [Q d] of the judged queries alone, of any length but 0.
        corpus: rows [M d], likewise.
        found: the judgements.
        tie: place of each candidate among equal scores [M].
        sizes: `query_rows` and `block_rows` of `retrieval.exact.count`.
    """
    own, inverse = np.unique(found.candidate, return_inverse=True)
    pairs = np.stack([found.query, inverse], axis=1)
    mine = metrics.pair_scores(metrics.unit(queries, "queries"), metrics.unit(corpus[own], "corpus"), pairs)
    rows = lambda values, fill: metrics.table(found.query, values, len(found.queries), fill)
    at = np.arange(len(found.query)) - np.searchsorted(found.query, found.query)
    options = {"place": rows(tie[found.candidate], 0), "tie": tie, "unit": True, **sizes}
    counts = exact.count(queries, corpus, rows(found.candidate, -1), rows(mine, np.nan), **options)
    greater, tied, tied_before = (part[found.query, at] for part in counts)
    reference = greater + tied_before + _within(found.query, tie[found.candidate], -mine)
    return Places(reference, greater + tied + _within(found.query, found.grade, -mine))


def _row_places(scores: np.ndarray, own: np.ndarray, grade: np.ndarray, tie: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both places of one query's relevant candidates, by counting what comes before them."""
    mine, ordered = scores[own], np.sort(scores)
    greater = len(ordered) - np.searchsorted(ordered, mine, side="right")
    no_less = len(ordered) - np.searchsorted(ordered, mine, side="left")
    reference = greater.copy()
    for i in np.flatnonzero(no_less - greater > 1):
        reference[i] += np.count_nonzero(tie[scores == mine[i]] < tie[own[i]])
    # Against the model: all others of the same score come first, then its own, the lowest grade first.
    mine_no_less = np.sum(mine[None, :] >= mine[:, None], axis=1)
    among_own = np.empty(len(own), np.int64)
    among_own[np.lexsort((grade, -mine))] = np.arange(len(own))
    return reference, no_less - mine_no_less + among_own


def per_query(place: np.ndarray, found: Judged, *, k: int, ks: Sequence[int]) -> dict[str, np.ndarray]:
    """`mrr@k`, `ndcg@k`, `map` and, for each cut-off in `ks`, `recall` and `success` of every judged query [Q], all 0 to 1.

    `map` ranks all candidates; `recall` divides by all relevant ones, never by the cut-off.
    """
    total = lambda weights: np.bincount(found.query, weights=weights, minlength=len(found.queries))
    relevant = np.maximum(total(None), 1)  # a query without one has sums of 0
    first = np.full(len(found.queries), np.inf)
    np.minimum.at(first, found.query, place)
    ideal = _within(found.query, -found.grade)
    dcg = total(found.grade / np.log2(place + 2.0) * (place < k))
    best = total(found.grade / np.log2(ideal + 2.0) * (ideal < k))
    out = {
        f"mrr@{k}": np.where(first < k, 1 / (first + 1), 0.0),
        f"ndcg@{k}": dcg / np.where(best > 0, best, 1),
        "map": total((_within(found.query, place) + 1) / (place + 1.0)) / relevant,
    }
    out |= {f"recall@{cut}": total(place < cut) / relevant for cut in ks}
    return out | {f"success@{cut}": (first < cut).astype(float) for cut in ks}


def _within(query: np.ndarray, *keys: np.ndarray) -> np.ndarray:
    """Place of each pair among those of its query when sorted by the last key, then by the one before, from 0; `query` is sorted."""
    order = np.lexsort((*keys, query))
    out = np.empty(len(query), np.int64)
    out[order] = np.arange(len(query)) - np.searchsorted(query, query[order])
    return out


def summary(found: Judged, placed: Places, *, k: int, ks: Sequence[int], prefix: str = "") -> dict[str, float]:
    """Means over the judged queries under both rules for ties, and the share of queries for which the rule matters."""
    out = {}
    for place, suffix in zip(placed, ("", "_pessimistic"), strict=True):
        out |= {f"{prefix}{name}{suffix}": float(values.mean()) for name, values in per_query(place, found, k=k, ks=ks).items()}
    tied = np.unique(found.query[placed.reference != placed.pessimistic])
    return out | {f"{prefix}tie_rate": len(tied) / len(found.queries)}


def mrr_chance(found: Judged, k: int) -> float:
    """Expected `mrr@k` of a random order: with m of M relevant, the first stands at place r with chance C(M - r - 1, m - 1) / C(M, m)."""
    relevant, everything = np.bincount(found.query, minlength=len(found.queries)).tolist(), found.candidates
    expected = {0: 0.0}
    for m in set(relevant) - {0}:
        last = min(k, everything - m + 1)
        expected[m] = sum(math.comb(everything - r - 1, m - 1) / math.comb(everything, m) / (r + 1) for r in range(last))
    return float(np.mean([expected[m] for m in relevant]))
