"""S101, RetroMAE and DupMAE: does rebuilding a text from its vector make a better start for search than hidden tokens alone?

A small tower reads docstrings and bodies of functions as single texts, with one of three objectives and the same tokens, and then learns
from one documented function in ten. Retrieval of functions by their docstrings, held out by package. The vector is the mean of the last
states, in pretraining as in search: from random init and in so few steps a first token's vector learns nothing in any of the arms.
"""

import pathlib
from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

import retrieval
from claims.claim import Claim, Contrast
from configs import common, pretrain_text
from evals.ranking import ranking
from input_pipeline.sources.docstrings import Docstrings

OBJECTIVES = ("mlm", "retromae", "dupmae")
PAIRS = "_pairs"  # ends the name of a second stage


def get_config(arg: str = "") -> ConfigDict:
    """Of one run: an objective, or its second stage, which starts from the run in `first`."""
    arg = common.parse_arg(arg, run="mlm", first="", quick=False)
    second, objective = arg.run.endswith(PAIRS), arg.run.removesuffix(PAIRS)
    stage = f"contrast,first={arg.first}" if second else f"pretrain,objective={objective}"
    config = pretrain_text.get_config(stage).unlock()
    config.data.global_batch = 128 if second else 64
    config.evals = {}
    config.train.steps = (20 if arg.quick else 60) if second else (30 if arg.quick else 120)
    config.checkpoint.every_steps = config.train.steps
    config.checkpoint.keep_last = 1
    if second and not arg.first:  # nothing to start from: the file is only looked at
        config.model.towers.text.init.path = f"runs/{objective}"
    return config.lock()


def measure(workdirs: Mapping[str, pathlib.Path]) -> dict[str, np.ndarray]:
    """Reciprocal rank of each held-out docstring by objective, after the second stage."""
    data = Docstrings(split="test")
    return {run.removesuffix(PAIRS): _reciprocal_ranks(workdir, data) for run, workdir in workdirs.items() if run.endswith(PAIRS)}


def _reciprocal_ranks(workdir: pathlib.Path, data: Docstrings) -> np.ndarray:
    model = retrieval.load(workdir)
    encode = {view: lambda texts, view=view: model.encode(texts, view) for view in ("query", "passage")}
    return ranking(encode, data, gallery_queries=0).items


CLAIM = Claim(
    title="RetroMAE and DupMAE",
    says="With one pair in ten, a tower pretrained by RetroMAE retrieves better than one pretrained by hidden tokens alone.",
    file=pathlib.Path(__file__),
    runs=(*OBJECTIVES, *(objective + PAIRS for objective in OBJECTIVES)),
    measure=measure,
    metric="MRR@10",
    contrasts=(Contrast("retromae", "mlm", 0.02), Contrast("dupmae", "mlm", 0.02), Contrast("dupmae", "retromae", 0.02)),
    first={objective + PAIRS: objective for objective in OBJECTIVES},
)
