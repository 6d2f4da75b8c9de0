"""Ranked-list metrics against trec_eval itself, through pytrec_eval, on runs full of ties."""

import numpy as np
import pytest

from evals import ranked

pytrec_eval = pytest.importorskip("pytrec_eval")
pytestmark = pytest.mark.parity

KS = (1, 5, 10, 100)
MEASURES = {"recip_rank", "map", "recall.1,5,10,100", "success.1,5,10", "ndcg_cut.10"}


@pytest.mark.parametrize("seed", range(4))
def test_every_query_of_runs_with_ties_scores_as_trec_eval_says(seed):
    rng = np.random.default_rng(seed)
    queries, candidates = 250, 130
    scores = (rng.integers(0, 20, (queries, candidates)) / 20).astype(np.float32)  # about six candidates a score
    rows = np.array([(q, c, rng.integers(-1, 4)) for q in range(queries) for c in rng.permutation(candidates)[: rng.integers(1, 20)]])
    names = [f"d{name}" for name in rng.permutation(1000)[:candidates]]
    found = ranked.judged(rows, queries, candidates)
    placed = ranked.places(lambda some: scores[some], found, ranked.name_order(names))
    ours = ranked.per_query(placed.reference, found, k=10, ks=KS)
    judgements = {str(q): {names[c]: int(grade) for p, c, grade in rows if p == q} for q in range(queries)}
    run = {str(q): dict(zip(names, scores[q].tolist(), strict=True)) for q in range(queries)}
    theirs = pytrec_eval.RelevanceEvaluator(judgements, MEASURES).evaluate(run)
    assert len(theirs) == len(found.queries)
    for i, query in enumerate(found.queries):
        expected = theirs[str(query)]
        first = expected["recip_rank"]
        assert ours["mrr@10"][i] == pytest.approx(first if first >= 0.1 else 0.0, abs=1e-6)
        pairs = {"ndcg@10": "ndcg_cut_10", "map": "map"} | {f"recall@{k}": f"recall_{k}" for k in KS}
        for name, other in (pairs | {f"success@{k}": f"success_{k}" for k in (1, 5, 10)}).items():
            assert ours[name][i] == pytest.approx(expected[other], abs=1e-6), name
