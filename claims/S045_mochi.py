"""S045, MoCHi: are mixtures of the hardest negatives better negatives?

Retrieval of functions by their docstrings, held out by package, from random init. Arms differ in what the one loss meets beside the batch:
nothing, mixtures of two negatives, or those and mixtures of a negative with the query, in the card's numbers; and the first and the last
again with passages of four earlier batches from an average of the tower, which are mixed as well. The card's matched temperature is read as
one that stays and is the same in all arms; in `learned` alone it moves, as in plain recipes. Mixing starts with the first step.
"""

import pathlib
from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

import retrieval
from claims import code_search
from claims.claim import Claim, Contrast
from claims.spread import spread
from configs import common
from evals.ranking import ranking
from input_pipeline.sources.docstrings import Docstrings

# Mixtures of two negatives, and of one with the query.
RUNS = {"learned": (0, 0), "plain": (0, 0), "two": (64, 0), "mochi": (64, 16), "queue": (0, 0), "queue_mochi": (64, 16)}
WIDTH, HARDEST = 96, 64


def get_config(arg: str = "") -> ConfigDict:
    """Of one run, a name in `RUNS`."""
    arg = common.parse_arg(arg, run="mochi", quick=False)
    config = code_search.base(WIDTH)
    mixed, with_query = RUNS[arg.run]
    inputs = dict(zq="z_query", zp="z_passage", id="id")
    if arg.run.startswith("queue"):
        # An average over ten steps: one over a hundred, as in runs of many thousands, would be near its random start in half of these.
        config.model.momentum.slow = dict(views=("passage",), decay=0.9)
        config.train.carries.queue = dict(name="queue", inputs=dict(z="z_passage_slow", id="id"), options=dict(batches=4))
        inputs |= dict(zp="z_passage_slow")
    options = dict(hardest=HARDEST, mixed=mixed, with_query=with_query)
    config.losses.main = dict(name="mochi", inputs=inputs, weight=1.0, options=options)
    config.optimizer.freeze = () if arg.run == "learned" else ("^log_logit_scale$",)
    config.train.steps = 30 if arg.quick else 120
    config.checkpoint.every_steps = config.train.steps
    return config.lock()


def measure(workdirs: Mapping[str, pathlib.Path]) -> dict[str, np.ndarray]:
    """By run, for each held-out docstring its reciprocal rank (`<run>`), and minus the uniformity of both sides there (`<run>_spread`)."""
    data = Docstrings(split="test")
    task, arms = data.ranking(), {}
    pairs = np.asarray(task.relevant)
    _, first = np.unique(pairs[:, 0], return_index=True)  # one function of each docstring
    for run, workdir in workdirs.items():
        model = retrieval.load(workdir)
        rows = {view: model.encode(texts, view) for view, texts in (("query", task.queries), ("passage", task.corpus))}
        sides = {view: lambda _, view=view, rows=rows: rows[view] for view in rows}
        arms[run] = ranking(sides, data, gallery_queries=0).items
        arms[f"{run}_spread"] = (spread(rows["query"]) + spread(rows["passage"])[pairs[first, 1]]) / 2
    return arms


CLAIM = Claim(
    title="MoCHi",
    says="Mixtures of the hardest negatives with each other and with the query make a better retriever of functions.",
    file=pathlib.Path(__file__),
    runs=tuple(RUNS),
    measure=measure,
    metric="MRR@10",
    contrasts=(
        Contrast("mochi", "plain", 0.02),
        Contrast("two", "plain", 0.02),
        Contrast("mochi", "two", 0.02),
        Contrast("mochi", "learned", 0.02),
        Contrast("queue_mochi", "queue", 0.02),
        Contrast("mochi_spread", "plain_spread", 0.05),
        Contrast("two_spread", "plain_spread", 0.05),
        Contrast("queue_mochi_spread", "queue_spread", 0.05),
    ),
)
