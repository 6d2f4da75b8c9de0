"""Images of any shape as sequences of patches with a place, at most a budget of them: NaFlex, the input of SigLIP 2.

Leaves the table of positions to the tower.
"""

import math

import numpy as np

SCALES = (1e-6, 100.0)  # between which the search looks
PRECISION = 1e-5
SIDE = 256  # rows or columns at most: a place is a byte
PLACES = 2  # values after the pixels of a patch: its row and its column


def grid(height: int, width: int, patch: int, budget: int) -> tuple[int, int]:
    """Rows and columns of patches: the largest grid of nearly the image's shape that the budget allows, at least one each.

    An image is enlarged up to 100 times.

    Args:
        height: of the image in pixels.
        width: of the image in pixels.
        patch: side of a patch in pixels.
        budget: patches at most.

    Source: SigLIP 2 (arXiv:2502.14786); the bisection and its bounds as in big_vision's `resize_to_sequence`.
    """
    sides = lambda scale: tuple(max(math.ceil(side * scale / patch), 1) for side in (height, width))
    low, high = SCALES
    while high - low >= PRECISION:
        middle = (low + high) / 2
        rows, columns = sides(middle)
        low, high = (middle, high) if rows * columns <= budget and max(rows, columns) <= SIDE else (low, middle)
    return sides(low)


def cut(image: np.ndarray, patch: int) -> np.ndarray:
    """Patches in reading order, uint8 [L P C], of an image whose sides are whole patches; P is the square of `patch`."""
    height, width, channels = image.shape
    split = image.reshape(height // patch, patch, width // patch, patch, channels)
    return split.transpose(0, 2, 1, 3, 4).reshape(-1, patch * patch, channels)


def padded(image: np.ndarray, patch: int, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """An image whose sides are whole patches, as a tower takes it.

    Returns:
        uint8 [budget, patch^2 + 2, C], the pixels of each patch and then its row and column in every channel, 0 where there is no patch;
        and a mask [budget] that is False there.
    """
    pieces, columns = cut(image, patch), image.shape[1] // patch
    made = np.zeros((budget, patch * patch + PLACES, image.shape[2]), np.uint8)
    made[: len(pieces), :-PLACES] = pieces
    place = np.arange(len(pieces))
    made[: len(pieces), -PLACES:] = np.stack([place // columns, place % columns], 1)[..., None]
    return made, np.arange(budget) < len(pieces)
