"""Search in a corpus that was badly read: how much of a ranking's score is left, by kind and rate of noise."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from core.config import ConfigError
from evals import controls as lexical
from evals import metrics, ranked
from evals.evaluation import Evaluation
from input_pipeline.text_noise import noisy

SAMPLE, SAMPLED_LENGTH = 64, 400  # texts, and characters of each, that the share of edits is measured on


def noise(
    encode: Mapping[str, Callable], data, *, query: str = "query", passage: str = "passage", measure: str = "ndcg@10",
    characters: tuple[float, ...] = (0.02, 0.08, 0.2), words: tuple[float, ...] = (0.05, 0.15, 0.4),
    layout: tuple[float, ...] = (0.05, 0.15, 0.4), controls: tuple[str, ...] = (), seed: int = 0,
) -> Evaluation:  # fmt: skip
    """Queries as they are rank the corpus once as it is and once for each noise; metrics follow trec_eval.

    Args:
        encode: functions of the views.
        data: a source with `ranking()` over texts.
        query: the view that reads the task's queries.
        passage: the view that reads its corpus.
        measure: of a query, at a cut-off: `ndcg@10`, `mrr@10`, `recall@100`, `success@1`, or `map`.
        characters: rates of characters that are confused, lost, doubled or moved.
        words: rates of words that are lost, replaced or moved.
        layout: rates of words that get a mark of layout, no letter being touched.
        controls: what ranks the same texts, as noisy, beside the model: `bag_of_words`, `bm25`.
        seed: of the noise.

    Returns:
        `<measure>/noisy` (primary), the mean over all noise, `<measure>/<kind>_<rate>` and `<measure>/<kind>` for each, `<measure>/clean`;
        all with their `_pessimistic` doubles; `kept`, noisy / clean (undefined where clean is 0); `tie_rate`; the same under `<control>/`;
        `edited/<kind>_<rate>`, the edits that made the noise, as a share of the longer text; `count/{queries,corpus}`.

    Raises:
        ConfigError: an unknown control or measure, rates outside 0 to 1, or none.
        ValueError: a corpus that is no text, embeddings that are not finite, or judgements that do not fit.

    Source: after Zhang et al. 2024 (OHRBench), arXiv:2412.02592; kinds and rates are ours.
    """
    lexical.check(controls)
    noises = _noises({"characters": characters, "words": words, "layout": layout})
    k = _cut_off(measure)
    task = data.ranking()
    found = ranked.judged(task.relevant, len(task.queries), len(task.corpus))
    if not all(isinstance(text, str) for text in task.corpus):
        raise ValueError("the corpus is no text, which noise could change; set config.evals.<label>.data to a set of texts.")
    tie = ranked.name_order(task.corpus_ids or range(len(task.corpus)))
    queries = metrics.unit(encode[query](task.queries), "query embeddings")
    scored: dict[str, dict[str, ranked.Places]] = {name: {} for name in ("", *(f"{name}/" for name in controls))}
    for name, (kind, rate) in {"clean": ("characters", 0.0), **noises}.items():
        corpus = [noisy(text, kind, rate, seed) for text in task.corpus]
        rows = metrics.unit(encode[passage](corpus), f"{name} passage embeddings")
        scored[""][name] = ranked.places(lambda some, rows=rows: metrics.scores(queries[some], rows), found, tie)
        for control in controls:
            scored[f"{control}/"][name] = ranked.places(lexical.scorer(control, task.queries, corpus), found, tie)
    each = lambda place: ranked.per_query(place, found, k=k, ks=(k,))[measure]
    values = {f"{who}{key}": value for who, places in scored.items() for key, value in summary(places, noises, measure, each).items()}
    values |= {f"edited/{name}": edited(task.corpus, kind, rate, seed) for name, (kind, rate) in noises.items()}
    values |= {"count/queries": float(len(found.queries)), "count/corpus": float(len(task.corpus))}
    items = np.mean([each(scored[""][name].reference) for name in noises], axis=0)
    return Evaluation(f"{measure}/noisy", values, len(found.queries), items=items)


def summary(places: Mapping[str, ranked.Places], noises: Mapping[str, tuple], measure: str, each: Callable) -> dict[str, float]:
    """Means over the judged queries of each noise and of each kind, under both rules for ties."""
    tied = [place.reference != place.pessimistic for place in places.values()]
    out = {"tie_rate": float(np.mean(tied))}
    for rule, suffix in enumerate(("", "_pessimistic")):
        mean = {name: float(each(place[rule]).mean()) for name, place in places.items()}
        kinds = {kind: [mean[name] for name, (other, _) in noises.items() if other == kind] for kind, _ in noises.values()}
        mean |= {kind: float(np.mean(some)) for kind, some in kinds.items()} | {"noisy": float(np.mean([mean[name] for name in noises]))}
        out |= {f"{measure}{suffix}/{name}": value for name, value in mean.items()}
    clean = out[f"{measure}/clean"]
    return out | {"kept": out[f"{measure}/noisy"] / clean if clean else float("nan")}


def edited(texts: Sequence[str], kind: str, rate: float, seed: int) -> float:
    """Mean edit distance of noisy texts from their own, as a share of the longer one; of the first 64 texts' first 400 characters."""
    pairs = [(text[:SAMPLED_LENGTH], noisy(text[:SAMPLED_LENGTH], kind, rate, seed)) for text in texts[:SAMPLE]]
    return float(np.mean([edit_distance(one, other) / max(len(one), len(other), 1) for one, other in pairs]))


def edit_distance(one: str, other: str) -> int:
    """Fewest characters inserted, deleted or replaced that turn one text into the other (Levenshtein)."""
    codes = np.array([ord(mark) for mark in other], np.int64)
    columns = np.arange(len(other) + 1)
    row = columns
    for number, mark in enumerate(one, 1):
        best = np.concatenate([[number], np.minimum(row[1:] + 1, row[:-1] + (codes != ord(mark)))])
        row = np.minimum.accumulate(best - columns) + columns  # an insertion costs 1 a column
    return int(row[-1])


def _noises(kinds: Mapping[str, Sequence[float]]) -> dict[str, tuple[str, float]]:
    """Kind and rate of each noise by name."""
    for kind, rates in kinds.items():
        if not all(0 <= rate <= 1 for rate in rates) or len(set(rates)) < len(rates):
            raise ConfigError(f"config.evals.<label>.options.{kind} is {tuple(rates)}; set it to distinct shares of 0 to 1, or to ().")
    found = {f"{kind}_{rate:g}": (kind, rate) for kind, rates in kinds.items() for rate in rates}
    if not found:
        raise ConfigError("there is no noise; set config.evals.<label>.options.characters, words or layout to rates such as (0.02, 0.08).")
    return found


def _cut_off(measure: str) -> int:
    name, _, number = measure.partition("@")
    if (measure != "map" and name not in ("ndcg", "mrr", "recall", "success")) or (
        measure != "map" and not (number.isdigit() and int(number))
    ):
        raise ConfigError(f"config.evals.<label>.options.measure is {measure!r}; set it to ndcg@10, mrr@10, recall@100, success@1 or map.")
    return int(number or 10)
