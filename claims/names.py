"""What claims about characters share: how well an image, or a part of one, finds the name of what it shows."""

from collections.abc import Sequence

import numpy as np

from evals import metrics
from input_pipeline.sources.glyphs import Glyphs


def reciprocal_ranks(data: Glyphs, images: np.ndarray, texts: np.ndarray, names: Sequence[str], own: np.ndarray) -> np.ndarray:
    """1 / rank of the own name among all [Q].

    Args:
        data: says which characters look the same: names of those are no rivals. A tie counts against the own name.
        images: unit rows [Q d].
        texts: unit rows [N d] of the names.
        names: N of them.
        own: which one each image shows [Q].
    """
    alike = np.array([[data.alike(one, other) for other in names] for one in names])
    scores = metrics.scores(images, texts)
    rivals = (scores >= scores[np.arange(len(own)), own][:, None]) & ~alike[own]
    return 1 / (1.0 + rivals.sum(1))
