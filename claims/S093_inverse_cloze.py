"""S093, the inverse cloze task: do a text's own sentences, asking for the rest of it, teach a tower to search before it sees a pair?

A small tower reads docstrings (sentences ask) and bodies of functions (lines ask), or the same texts with tokens hidden, for the same
number of tokens, and then learns from one documented function in ten, for 60 steps. Retrieval of functions by their docstrings, held out
by package, before that second stage and after it, beside BM25. The card's other tasks, which need links between documents, are not among
the arms. Both sides share one tower; scores are cosines.
"""

import pathlib
from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

import retrieval
from claims import two_stages
from claims.claim import Claim, Contrast
from evals import controls, ranked
from evals.ranking import ranking
from input_pipeline.sources.docstrings import Docstrings

ROWS = dict(mlm=96, ict=64)  # of a batch: 96 x 64 tokens, and 64 x (32 + 64)


def get_config(arg: str = "") -> ConfigDict:
    """Of one run, a name in `CLAIM.runs`."""
    return two_stages.get_config(arg, rows=ROWS, steps=150, second=(128, 60))


def measure(workdirs: Mapping[str, pathlib.Path]) -> dict[str, np.ndarray]:
    """Reciprocal rank of each held-out docstring, by `<objective>_0` before the second stage, `<objective>_1in10` after it, and `bm25`."""
    data = Docstrings(split="test")
    arms = {f"{run}_0" if run in ROWS else run: _reciprocal_ranks(workdir, data) for run, workdir in workdirs.items()}
    return arms | {"bm25": _words(data)}


def _reciprocal_ranks(workdir: pathlib.Path, data: Docstrings) -> np.ndarray:
    model = retrieval.load(workdir)
    of = lambda view: view if view in model.views else "text"  # hidden tokens are learned from one view
    encode = {view: lambda texts, view=view: model.encode(texts, of(view)) for view in ("query", "passage")}
    return ranking(encode, data, gallery_queries=0).items


def _words(data: Docstrings) -> np.ndarray:
    task = data.ranking()
    found = ranked.judged(task.relevant, len(task.queries), len(task.corpus))
    placed = ranked.places(controls.scorer("bm25", task.queries, task.corpus), found, ranked.name_order(range(len(task.corpus))))
    return ranked.per_query(placed.reference, found, k=10, ks=())["mrr@10"]


FIRST = two_stages.first(tuple(ROWS))
CLAIM = Claim(
    title="Inverse cloze task",
    says="With one pair in ten, a tower pretrained by the inverse cloze task retrieves better than one pretrained by hidden tokens.",
    file=pathlib.Path(__file__),
    runs=(*ROWS, *FIRST),
    measure=measure,
    metric="MRR@10",
    contrasts=(
        Contrast("ict_1in10", "mlm_1in10", 0.02),
        Contrast("ict_0", "mlm_0", 0.02),
        Contrast("ict_1in10", "ict_0", 0.02),
        Contrast("bm25", "ict_0", 0.02),
    ),
    first=FIRST,
)
