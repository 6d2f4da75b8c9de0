"""How evenly vectors lie on the sphere, row by row: claims want one number for each item."""

import numpy as np


def spread(rows: np.ndarray) -> np.ndarray:
    """Minus the log of the mean of exp(-2 squared distance) from each unit row [N d] to the others [N].

    Equal rows have 0, and more is more even. The mean is near minus the uniformity of Wang and Isola (arXiv:2005.10242), whose one log
    is taken of the mean over all pairs, and never below it.
    """
    rows = np.asarray(rows, np.float64)
    near = np.exp(-2 * (2 - 2 * rows @ rows.T))
    np.fill_diagonal(near, 0)
    return -np.log(near.sum(1) / (len(rows) - 1))
