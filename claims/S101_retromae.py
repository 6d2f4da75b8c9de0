"""S101, RetroMAE and DupMAE: does rebuilding a text from its vector make a better start for search than hidden tokens alone?

A small tower reads docstrings and bodies of functions as single texts, with one of three objectives and the same tokens, and then learns
from one documented function in ten. Retrieval of functions by their docstrings, held out by package. The vector is the mean of the last
states, in pretraining as in search: from random init and in so few steps a first token's vector learns nothing in any of the arms.
"""

import pathlib
from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

from claims import code_search, two_stages
from claims.claim import Claim, Contrast

OBJECTIVES = ("mlm", "retromae", "dupmae")


def get_config(arg: str = "") -> ConfigDict:
    """Of one run, a name in `CLAIM.runs`."""
    return two_stages.get_config(arg, rows=dict.fromkeys(OBJECTIVES, 64), steps=120)


def measure(workdirs: Mapping[str, pathlib.Path]) -> dict[str, np.ndarray]:
    """Reciprocal rank of each held-out docstring by objective, after the second stage."""
    return {objective: code_search.reciprocal_ranks(workdirs[second]) for second, objective in CLAIM.first.items()}


CLAIM = Claim(
    title="RetroMAE and DupMAE",
    says="With one pair in ten, a tower pretrained by RetroMAE retrieves better than one pretrained by hidden tokens alone.",
    file=pathlib.Path(__file__),
    runs=two_stages.runs(OBJECTIVES),
    measure=measure,
    metric="MRR@10",
    contrasts=(Contrast("retromae", "mlm", 0.02), Contrast("dupmae", "mlm", 0.02), Contrast("dupmae", "retromae", 0.02)),
    first=two_stages.first(OBJECTIVES),
)
