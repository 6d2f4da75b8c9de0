"""Several texts in one row of tokens, so that little is computed for padding.

Leaves it to the towers that texts of a row do not see each other (`models/packing.py`).
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from input_pipeline.tokenize import Tokenizer
from input_pipeline.tokenize.clean import as_text


def pack(
    values: Sequence[str | bytes] | Sequence[Sequence[str | bytes]], rngs: Iterable | None, tokenizer: Tokenizer, *,
    length: int, group: int, rows: int, prompt: str = "",
) -> dict[str, np.ndarray]:  # fmt: skip
    """Groups of texts, one after the other, each packed into rows of its own.

    Args:
        values: texts, or lists of equally many; a single one stands for its shapes.
        rngs: not used.
        tokenizer: of the run.
        length: tokens of a row, and of a text at most.
        group: texts that share rows.
        rows: that they share. Where a group has more tokens, its longest texts are cut until all find room.
        prompt: goes before every text.

    Returns:
        `""`: int32 [N S] with S = rows * length / group: the rows of a group, spread over its texts.
        `"_places"`: int32 [N group 2]: where each text of the group begins in the group's rows, and its tokens.

    Raises:
        ValueError: sizes that do not split, or rows that hold too few tokens for a text each.
    """
    share, rest = divmod(rows * length, group)
    lists = bool(values) and isinstance(values[0], (list, tuple))
    texts = [prompt + as_text(text) for item in values for text in (item if lists else (item,))]
    if rest or (len(values) > 1 and len(texts) % group):
        found = f"{rows} rows of {length} tokens" if rest else f"{len(texts)} texts of this process"
        raise ValueError(f"{found} do not split over {group} texts; change options.group, or options.rows and config.data.global_batch.")
    texts += [""] * (-len(texts) % group)
    made = [_group(texts[start : start + group], tokenizer, length, rows) for start in range(0, len(texts), group)]
    ids = np.concatenate([ids.reshape(group, share) for ids, _ in made])
    places = np.repeat(np.stack([places for _, places in made]), group, axis=0)
    shape = (len(values), len(values[0])) if lists else (len(values),)
    count = math.prod(shape)
    return {"": ids[:count].reshape(*shape, share), "_places": places[:count].reshape(*shape, group, 2)}


def first_fit(counts: np.ndarray, rows: int, length: int) -> np.ndarray | None:
    """Where texts of these lengths begin in rows of `length` tokens, or None where they do not fit; the longest are placed first.

    Source: first-fit decreasing, Johnson 1973: at most 11/9 of the rows that the best packing needs.
    """
    free, starts = np.full(rows, length), np.zeros(len(counts), np.int32)
    for text in np.argsort(-counts, kind="stable"):
        row = int(np.argmax(free >= counts[text]))
        if free[row] < counts[text]:
            return None
        starts[text] = row * length + length - free[row]
        free[row] -= counts[text]
    return starts


def _group(texts: Sequence[str], tokenizer: Tokenizer, length: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of the rows of a group, and its places."""
    ids, mask = tokenizer(texts, length)
    counts = mask.sum(axis=1)
    most = int(counts.max())
    while (starts := first_fit(np.minimum(counts, most), rows, length)) is None:
        most -= 1
        if most <= len(tokenizer.frame.prefix) + len(tokenizer.frame.suffix):
            raise ValueError(f"{len(texts)} texts do not fit into {rows} rows of {length} tokens; raise options.rows.")
    if most < counts.max():  # the tokenizer cuts, since it knows what ends a text
        ids = np.where((counts > most)[:, None], np.pad(tokenizer(texts, most)[0], ((0, 0), (0, length - most))), ids)
    counts = np.minimum(counts, most)
    flat = np.full(rows * length, tokenizer.pad_id, np.int32)
    for text, start, count in zip(ids, starts, counts, strict=True):
        flat[start : start + count] = text[:count]
    return flat, np.stack([starts, counts], axis=1).astype(np.int32)
