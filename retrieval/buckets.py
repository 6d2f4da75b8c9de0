"""Batches of texts of like length: little padding, few shapes to compile."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Batch(NamedTuple):
    """Rows of a collection that are encoded at once.

    `rows` are indices into the collection, at most `size` of them; the arrays have `size` rows of `width` tokens.
    """

    rows: np.ndarray
    size: int
    width: int


def widths(longest: int) -> tuple[int, ...]:
    """Lengths that texts are padded to: 8 tokens apart up to 128, from there an eighth of the last power of two; `longest` is the last."""
    made, width = [], 8
    while width < longest:
        made.append(width)
        width += max(8, (1 << width.bit_length()) // 16)
    return (*made, longest)


def plan(lengths: np.ndarray, choices: Sequence[int], tokens: int, parts: int = 1) -> list[Batch]:
    """Batches of about `tokens` tokens, padding included, that hold every row once; the longest rows come first.

    A row goes with those of nearest length, so that a batch is only as wide as its longest row needs. Each width has two sizes at
    most: the smaller, a quarter, serves where no more rows are that wide.

    Args:
        lengths: tokens of each row.
        choices: the widths, ascending; the last holds the longest row.
        tokens: of a full batch; a row that is longer is a batch alone.
        parts: sizes are multiples of this, the shards of a mesh.
    """
    order, batches, start = np.argsort(-lengths, kind="stable"), [], 0
    needed = np.searchsorted(choices, lengths[order])  # which width
    while start < len(order):
        width = int(choices[needed[start]])
        full, quarter = (max(share // width // parts, 1) * parts for share in (tokens, tokens // 4))
        size = quarter if (needed[start:] == needed[start]).sum() <= quarter else full
        batches.append(Batch(order[start : start + size], size, width))
        start += size
    return batches
