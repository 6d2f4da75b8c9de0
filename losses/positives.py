"""Which passages are right for which query, and which rows count; shared by every loss over pairs."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def is_positive(
    rows: Int[Array, " B"],
    columns: Int[Array, " N"],
    ids: tuple[tuple[Int[Array, " B"], Int[Array, " N"]], ...],
) -> Bool[Array, "B N"]:
    """True where query and passage are one pair, or agree in any of `ids`.

    Args:
        rows: index of each query in the global batch.
        columns: index of each passage in the global batch.
        ids: (of the queries, of the passages) for each kind of label: `id`, `alias`. The relation need not be transitive.
    """
    same = rows[:, None] == columns[None, :]
    for query, passage in ids:
        same |= query[:, None] == passage[None, :]
    return same


def pair_mask(id: Int[Array, " B"] | None, alias: Int[Array, " B"] | None, queries: int, passages: int) -> Bool[Array, "B N"]:
    """The positives of a batch; passages beyond the last query's own belong to none.

    Args:
        id: label of each pair; None: every pair has its own.
        alias: a second label, for example a hash of the rendered image; equal in either makes a positive.
        queries: B.
        passages: N, at least B.
    """
    ids = tuple((label, label) for label in (id, alias) if label is not None)
    same = is_positive(jnp.arange(queries), jnp.arange(queries), ids)
    return jnp.pad(same, ((0, 0), (0, passages - queries)))


def check_pairs(queries: int, passages: int) -> None:
    """Refuses a batch in which some query has no passage of its own.

    Raises:
        ValueError: names the key to change.
    """
    if passages < queries:
        raise ValueError(
            f"{queries} queries but {passages} passages, so some query has no positive; set config.data.passages_per_query to 1 or more."
        )


def present(weight: Float[Array, " B"] | None, queries: int) -> Bool[Array, " B"]:
    """Rows that are not padding: those of a weight other than 0."""
    return jnp.ones(queries, bool) if weight is None else weight != 0


def blank(z: Array | None, weight: Float[Array, " B"] | None) -> Array | None:
    """Embeddings with zeros in padded rows, so that whatever a tower made of padding (NaN too) reaches no value and no gradient.

    Rows beyond the B of `weight` (passages that belong to no query) are kept.
    """
    if z is None or weight is None:
        return z
    keep = jnp.pad(weight != 0, (0, z.shape[0] - weight.shape[0]), constant_values=True)
    return jnp.where(keep.reshape(-1, *[1] * (z.ndim - 1)), z, 0)
