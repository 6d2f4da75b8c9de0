"""Losses that read more than the two vectors of a pair, in whole runs over pairs with negatives, a label and a teacher's scores."""

import functools
import json

import numpy as np
import pytest

from tests import tiny
from tests.training.test_captures import alike
from tests.training.test_heads import STEADY

PAIR = dict(zq="z_query", zp="z_passage")
LAYERS = dict(zq_layers="layers_pooled_query", zp_layers="layers_pooled_passage")
LOSSES = dict(
    starbucks=dict(
        inputs=PAIR | LAYERS,
        options=dict(sizes=((1, 4), (2, 16)), loss=dict(name="infonce", inputs=dict(id="id"), options=dict(symmetric=False))),
    ),
    structure_clip=dict(
        inputs=PAIR | dict(zn="z_negatives", zn_weight="told", id="id", weight=None), options=dict(mean_steps=2, swap_margin=0.5)
    ),
    score_distill=dict(inputs=dict(score="pair_score", teacher="teacher", label="label"), options=dict(share=0.5)),
    rank_distill=dict(inputs=PAIR | dict(zn="z_negatives", teacher="scores"), options=dict(kind="kl")),
)


@pytest.fixture
def pairs(tmp_path):
    """A file of 40 pairs, each with two negatives and a teacher's scores."""
    rng, path = np.random.default_rng(0), tmp_path / "pairs.jsonl"
    rows = [
        dict(
            query=f"query number {i}", positive=f"an answer to {i}", wrong=[f"an answer to {i + 1}", f"none to {i}"],
            label=i % 2, teacher=rng.normal(), scores=rng.normal(size=3).tolist(), told=float(i % 3 > 0),
        )
        for i in range(40)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def config(name, path, **changes):
    """One text tower of two layers for queries, passages and negatives, and one loss."""
    made = tiny.config(train__steps=4, evals={}, **STEADY | changes)
    options = dict(files=(path,), negatives=("wrong",), k=2, numbers=("label", "teacher", "scores", "told"))
    made.data.sources = dict(main=dict(name="pairs", weight=1.0, options=options))
    made.data.transforms = dict.fromkeys(("query", "passage", "negatives"), made.data.transforms.text)
    del made.model.towers["image"]
    made.model.towers.text.options.update(layers=2, pooling="mean", causal=False)
    made.model.views = dict.fromkeys(made.data.transforms, "text")
    made.model.heads.pair = dict(name="pair_score", inputs=dict(one="z_query", two="z_passage"), options=dict(kind="dot"))
    made.losses.main = dict(name=name, weight=1.0, **LOSSES[name])
    made.checkpoint.best = None
    return made


@pytest.mark.many_processes  # compiles three runs each
@pytest.mark.parametrize("name", LOSSES)
def test_neither_mesh_nor_microbatches_nor_a_break_change_a_run(name, pairs, tmp_path):
    alike(functools.partial(config, name, pairs), tmp_path)
