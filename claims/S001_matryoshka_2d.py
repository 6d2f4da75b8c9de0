"""S001, 2DMSE: is a model whose inner layers and first values were trained to be embeddings a better small model than one that is cut?

Retrieval of functions by their docstrings, held out by package, from random init. A model of four layers and 64 values is cut to two layers
and 16 values: plainly trained, trained with Matryoshka, and with 2DMSE; beside it a model of that size of its own. Of the grid of depths
and widths these are the corners with two or four layers, and 16 or 64 values. Passages begin with their function's signature.
"""

import pathlib
from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

import retrieval
from claims import sizes
from claims.claim import Claim, Contrast
from configs import common
from input_pipeline.sources.docstrings import Docstrings

SHALLOW, NARROW = 2, 16


def get_config(arg: str = "") -> ConfigDict:
    """Of one run: `plain`, `mrl`, `2dmse` or `separate`."""
    arg = common.parse_arg(arg, run="plain", quick=False)
    separate = arg.run == "separate"
    config = sizes.base(layers=SHALLOW if separate else sizes.LAYERS, dim=NARROW if separate else sizes.WIDTH, quick=arg.quick)
    options = dict(loss=sizes.INNER, dims=sizes.DIMS)
    if arg.run == "mrl":
        config.losses.main = dict(name="matryoshka", inputs=sizes.PAIR, weight=1.0, options=options)
    elif arg.run == "2dmse":
        config.losses.main = dict(name="matryoshka_2d", inputs=sizes.PAIR | sizes.STATES, weight=1.0, options=options)
    else:
        config.losses.main = sizes.INNER | dict(inputs=sizes.PAIR | sizes.INNER["inputs"], weight=1.0)
    return config.lock()


def measure(workdirs: Mapping[str, pathlib.Path]) -> dict[str, np.ndarray]:
    """Reciprocal rank of each held-out query by arm: `<run>_<layers>x<width>`."""
    data, arms = Docstrings(split="test", signature=True), {}
    for run, workdir in workdirs.items():
        model = retrieval.load(workdir)
        for layers in (SHALLOW,) if run == "separate" else (SHALLOW, sizes.LAYERS):
            found = sizes.reciprocal_ranks(model, layers, (NARROW, *(() if run == "separate" else (sizes.WIDTH,))), data)
            arms |= {f"{run}_{layers}x{dim}": ranks for dim, ranks in found.items()}
    return arms


CLAIM = Claim(
    title="2DMSE",
    says="Half of the layers and a quarter of the values of a 2DMSE model retrieve better than those of a plain one.",
    file=pathlib.Path(__file__),
    runs=("plain", "mrl", "2dmse", "separate"),
    measure=measure,
    metric="MRR@10",
    contrasts=(
        Contrast("2dmse_2x16", "plain_2x16", 0.02),
        Contrast("2dmse_2x64", "plain_2x64", 0.02),
        Contrast("2dmse_2x16", "mrl_2x16", 0.02),
        Contrast("2dmse_2x16", "separate_2x16", 0.02),
        Contrast("2dmse_4x64", "plain_4x64", 0.02),
    ),
)
