"""Search: the queries of a source's `ranking()` task against its whole corpus, beside controls that need no model."""

from collections.abc import Callable, Mapping

import numpy as np

from evals import controls as lexical
from evals import gallery, metrics, ranked
from evals.evaluation import Evaluation


def ranking(
    encode: Mapping[str, Callable], data, *, query: str = "query", passage: str = "passage", primary: str = "mrr@10", k: int = 10,
    ks=(1, 5, 10, 100), controls: tuple[str, ...] = (), gallery_queries: int = 12, seed: int = 0,
) -> Evaluation:  # fmt: skip
    """Each query ranks the whole corpus by cosine; metrics follow trec_eval, means are over the judged queries.

    Args:
        encode: functions of the views.
        data: a source with `ranking()`.
        query: the view that reads the task's queries.
        passage: the view that reads its corpus.
        primary: the metric that decides which checkpoint is best.
        k: cut-off of `mrr` and `ndcg`.
        ks: cut-offs of `recall` and `success`.
        controls: what ranks the same texts beside the model: `bag_of_words`, `bm25`.
        gallery_queries: queries shown that were drawn before any result was seen, and as many of those that went worst; 0 shows none.
        seed: of the drawn ones.

    Returns:
        `mrr@k`, `ndcg@k`, `map`, `recall@*` (share of the relevant candidates found) and `success@*` (whether any was), each with its
        `_pessimistic` double, `tie_rate`, `mrr@k_chance`, the same under `<control>/`, and `count/{queries,corpus,relevant}`.

    Raises:
        ConfigError: an unknown control.
        ValueError: embeddings that are not finite, judgements that do not fit the task, or a primary metric that is not measured.
    """
    lexical.check(controls)
    task = data.ranking()
    found = ranked.judged(task.relevant, len(task.queries), len(task.corpus))
    tie = ranked.name_order(task.corpus_ids or range(len(task.corpus)))
    queries = metrics.check_unit(encode[query](task.queries), "query embeddings")
    corpus = metrics.check_unit(encode[passage](task.corpus), "passage embeddings")
    placed = ranked.embedded_places(queries[found.queries], corpus, found, tie)
    values = ranked.summary(found, placed, k=k, ks=tuple(ks))
    values[f"mrr@{k}_chance"] = ranked.mrr_chance(found, k)
    for name in controls:
        beside = ranked.places(lexical.scorer(name, task.queries, task.corpus), found, tie)
        values |= ranked.summary(found, beside, k=k, ks=tuple(ks), prefix=f"{name}/")
    values |= {"count/queries": float(len(found.queries)), "count/corpus": float(len(corpus)), "count/relevant": float(len(found.query))}
    score_rows = lambda rows: metrics.cosines(queries[rows], corpus)
    shown = gallery.ranked_lists(task, score_rows, found, placed.reference, tie, gallery_queries, seed) if gallery_queries else {}
    return Evaluation(primary, values, len(found.queries), shown, _items(primary, placed, found, k, tuple(ks)))


def _items(primary: str, placed: ranked.Places, found: ranked.Judged, k: int, ks: tuple[int, ...]) -> np.ndarray | None:
    """The primary metric of each judged query; None for one that no query has, as the rate of ties."""
    place = placed.pessimistic if primary.endswith("_pessimistic") else placed.reference
    each = ranked.per_query(place, found, k=k, ks=ks)
    name = primary.removesuffix("_pessimistic")
    return each[name] if name in each else None
