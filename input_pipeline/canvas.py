"""Several images of one size on one canvas, and where each of them is.

Boxes are (left, top, right, bottom) in shares of the canvas, 0 to 1. Leaves what is put on a canvas to `input_pipeline/sources/`.
"""

from collections.abc import Sequence

import numpy as np


def assemble(tiles: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Images [h w C] of one size as a grid, row by row.

    Raises:
        ValueError: a last row that is not full.
    """
    if not len(tiles) or len(tiles) % columns:
        raise ValueError(f"{len(tiles)} tiles do not fill rows of {columns}; the grid must be whole.")
    tiles = np.stack(tiles)
    count, height, width, channels = tiles.shape
    rows = count // columns
    # Rows and columns of the grid stand outside rows and columns of pixels: (M h) by (N w), and not transposed.
    return tiles.reshape(rows, columns, height, width, channels).swapaxes(1, 2).reshape(rows * height, columns * width, channels)


def cut(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The tiles [rows * columns h w C] of a canvas, row by row: what `assemble` put together."""
    height, width, channels = image.shape[0] // rows, image.shape[1] // columns, image.shape[2]
    return image.reshape(rows, height, columns, width, channels).swapaxes(1, 2).reshape(rows * columns, height, width, channels)


def boxes(rows: int, columns: int) -> np.ndarray:
    """Where the tiles of a grid are, float32 [rows * columns 4], row by row."""
    row, column = (axis.ravel() for axis in np.mgrid[:rows, :columns])
    return np.stack([column / columns, row / rows, (column + 1) / columns, (row + 1) / rows], axis=1).astype(np.float32)


def centred(image: np.ndarray, size: int) -> np.ndarray:
    """The image [h w C] in the middle of a black square of `size` pixels."""
    canvas = np.zeros((size, size, image.shape[2]), image.dtype)
    top, left = ((size - side) // 2 for side in image.shape[:2])
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return canvas
