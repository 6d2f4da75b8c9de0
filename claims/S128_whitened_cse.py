"""S128, WhitenedCSE: does whitening shuffled groups of channels give views that teach more than dropout alone?

SimCSE from random init on the bodies of functions, without a pair in sight; what is measured is how docstrings, which training never
shows, find the functions of packages that it never shows: what a retriever is for, where the card would match halves of a docstring (X03).
Three views are three passes with dropout; the arms with whitening have three views as well, so that more positives explain nothing.
The tower is a mean of words behind a linear map, where the paper reads a first token; alignment and uniformity are not measured.
"""

import pathlib
from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

from claims import code_search
from claims.claim import Claim, Contrast
from configs import common

WIDTH = 96
GROUPS = {"two_views": 0, "three_views": 0, "one_group": 1, "groups_of_6": WIDTH // 6, "channels": WIDTH}


def get_config(arg: str = "") -> ConfigDict:
    """Of one run, a name in `GROUPS`."""
    arg = common.parse_arg(arg, run="three_views", quick=False)
    config = code_search.base(WIDTH)
    views = ("two",) if arg.run == "two_views" else ("two", "three")
    for view in views:
        config.data.copies[view], config.data.transforms[view] = "passage", config.data.transforms.passage
        config.model.views[view] = "text"
    inputs = dict(one="z_passage", key="key") | {view: f"z_{view}" for view in views}
    config.model.heads.cse = dict(name="shuffled_whitening", inputs=inputs, options=dict(groups=GROUPS[arg.run]))
    for view in views:
        inputs = dict(zq="cse_one", zp=f"cse_{view}", id="id")
        config.losses[view] = dict(name="infonce", inputs=inputs, weight=1.0, options=dict(symmetric=False))
    config.optimizer.freeze = ("^log_logit_scale$",)  # the papers' temperature of 0.05
    config.train.steps = 40 if arg.quick else 200
    config.checkpoint.every_steps = config.train.steps
    return config.lock()


def measure(workdirs: Mapping[str, pathlib.Path]) -> dict[str, np.ndarray]:
    """Reciprocal rank of each held-out query by run; the head is left behind, as the paper does."""
    return {run: code_search.reciprocal_ranks(workdir) for run, workdir in workdirs.items()}


CLAIM = Claim(
    title="WhitenedCSE",
    says="Whitening shuffled groups of six channels makes SimCSE with three views retrieve better.",
    file=pathlib.Path(__file__),
    runs=tuple(GROUPS),
    measure=measure,
    metric="MRR@10",
    contrasts=(
        Contrast("groups_of_6", "three_views", 0.01),
        Contrast("groups_of_6", "two_views", 0.01),
        Contrast("three_views", "two_views", 0.01),
        Contrast("one_group", "three_views", 0.01),
        Contrast("channels", "three_views", 0.01),
    ),
)
