"""Similarities of pairs of rows, as evaluators of pairs measure them."""

import numpy as np

from evals import metrics


def similarities(first: np.ndarray, second: np.ndarray) -> dict[str, np.ndarray]:
    """`cosine`, `manhattan`, `euclidean` and `dot` of each pair of rows [N]; distances are negated, so that more is more alike.

    Taken in float64 and rounded to float32, like all scores here: two pairs of equal texts then tie, as they should.

    Raises:
        ValueError: embeddings that are not finite, or of length 0; names the rows.
    """
    units = metrics.unit(first, "first embeddings"), metrics.unit(second, "second embeddings")
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    found = {
        "cosine": (units[0] * units[1]).sum(axis=1),
        "manhattan": -np.abs(one - other).sum(axis=1),
        "euclidean": -np.linalg.norm(one - other, axis=1),
        "dot": (one * other).sum(axis=1),
    }
    return {name: score.astype(np.float32) for name, score in found.items()}
