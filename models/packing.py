"""Texts that share rows of tokens: who sees whom, which position a token has, and each text in a row of its own again.

Leaves filling the rows to `input_pipeline/packing.py`.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Shaped


class Packed(NamedTuple):
    """Rows of tokens.

    Attributes:
        ids: tokens.
        keys: a dropout key for each row.
        texts: number of the text that a token is of, from 1, within its group; 0 is padding. Attention takes it for its mask.
        position: of a token in its text.
        table: where each text begins in the rows of its group, and its tokens.
        length: tokens of a row, and of a text at most.
        count: of all texts.
    """

    ids: Int[Array, "R T"]
    keys: Key[Array, " R"] | None
    texts: Int[Array, "R T"]
    position: Int[Array, "R T"]
    table: Int[Array, "groups G 2"]
    length: int
    count: int


def rows(ids: Int[Array, "B S"], keys: Key[Array, " B"] | None, places: Int[Array, "B G 2"], length: int) -> Packed:
    """The rows of packed texts.

    Dropout is drawn by row, from the key of one of its group's texts: a mask depends neither on mesh nor microbatches, but is another
    than without packing.

    Args:
        ids: of a group its rows one after the other, an equal share in each of its texts.
        keys: one for each text.
        places: for each text where all of its group begin, and their tokens.
        length: of a row.

    Raises:
        ValueError: texts that do not split into groups, or groups into rows; a single text only shows shapes.
    """
    count, group, tokens = len(ids), places.shape[1], places.shape[1] * ids.shape[1]
    if count > 1 and (count % group or tokens % length):
        found = f"{count} texts in groups of {group}" if count % group else f"{tokens} tokens of a group in rows of {length}"
        raise ValueError(
            f"{found} do not split; set options.length of the transform 'pack' and of the tower alike, and config.data.global_batch to a "
            "multiple of its options.group."
        )
    groups = max(count // group, 1)
    flat, table = ids.reshape(groups, -1), places[::group]
    from_start = jnp.arange(flat.shape[1])[None, :, None] - table[:, None, :, 0]  # [groups tokens G]
    inside = (from_start >= 0) & (from_start < table[:, None, :, 1])
    width = min(length, flat.shape[1])
    texts, position = (jnp.sum(inside * a, axis=2).reshape(-1, width) for a in (1 + jnp.arange(group)[None, None], from_start))
    if keys is not None:
        keys = keys.reshape(groups, -1)[:, : len(texts) // groups].reshape(-1)
    return Packed(flat.reshape(-1, width), keys, texts, position, table, length, count)


def unpack(
    packed: Packed, ids: Int[Array, "R T"], x: Float[Array, "R T w"], layers: Float[Array, "N R T w"] | None
) -> tuple[Int[Array, "B L"], Float[Array, "B L w"], Float[Array, "N B L w"] | None, Bool[Array, "B L"]]:
    """Ids and states with each text in a row of its own, from its first token on, and the mask of its tokens; other ids are 0."""
    mask = (jnp.arange(packed.length)[None, None] < packed.table[..., 1:]).reshape(-1, packed.length)[: packed.count]
    layers = None if layers is None else jax.vmap(partial(_alone, packed))(layers)
    return jnp.where(mask, _alone(packed, ids[..., None])[..., 0], 0), _alone(packed, x), layers, mask


def _alone(packed: Packed, states: Shaped[Array, "R T w"]) -> Shaped[Array, "B L w"]:
    groups, width = len(packed.table), states.shape[2]
    flat = states.reshape(groups, -1, width)
    index = (packed.table[..., :1] + jnp.arange(packed.length)[None, None]).reshape(groups, -1, 1)
    taken = jnp.take_along_axis(flat, jnp.minimum(index, flat.shape[1] - 1), axis=1)
    return taken.reshape(-1, packed.length, width)[: packed.count]
