"""Learned position tables for another image size or length."""

import math

import numpy as np


def grid(table: np.ndarray, side: int, first: int = 0) -> np.ndarray:
    """A table of a square grid, resampled bicubically; smoothed first where it shrinks.

    Args:
        table: `[1, first + old * old, w]`, patches in reading order.
        side: of the new grid.
        first: rows before the patches (a class token), which stay.

    Returns:
        `[1, first + side * side, w]`.

    Source: Keys' kernel with a = -0.5 and an antialiasing width, as Pillow, `jax.image.resize` and open_clip have it.
    """
    kept, patches = table[:, :first], table[0, first:]
    old = math.isqrt(len(patches))
    weights = _cubic(old, side)
    resized = np.einsum("yh,xw,hwd->yxd", weights, weights, patches.reshape(old, old, -1).astype(np.float64))
    return np.concatenate([kept, resized.reshape(1, side * side, -1).astype(table.dtype)], axis=1)


def line(table: np.ndarray, length: int, first: int = 0) -> np.ndarray:
    """A table `[first + old, w]` for texts of another length: cut where it shrinks, so that places keep their meaning, and interpolated
    linearly where it grows.

    Args:
        table: of places in a text.
        length: places that it is to have.
        first: rows before them, which stay (RoBERTa's two, that no text reads).
    """
    kept, places = table[:first], table[first:]
    if length <= len(places):
        return np.concatenate([kept, places[:length]])
    at = np.clip((np.arange(length) + 0.5) * len(places) / length - 0.5, 0, len(places) - 1)
    low = np.minimum(at.astype(int), len(places) - 2)
    share = (at - low)[:, None]
    return np.concatenate([kept, ((1 - share) * places[low] + share * places[low + 1]).astype(table.dtype)])


def _cubic(old: int, new: int) -> np.ndarray:
    """Weights `[new, old]` of Keys' kernel, rows summing to 1."""
    scale = old / new
    at = (np.arange(new) + 0.5) * scale - 0.5
    d = np.abs(at[:, None] - np.arange(old)) / max(scale, 1.0)
    near, far = 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    weights = np.where(d <= 1, near, np.where(d < 2, far, 0.0))
    return weights / weights.sum(axis=1, keepdims=True)
