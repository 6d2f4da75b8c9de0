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
        columns: index of each passage in the global batch; a negative one belongs to no query.
        ids: (of the queries, of the passages) for each kind of label: `id`, `alias`. The relation need not be transitive.
    """
    same = rows[:, None] == columns[None, :]
    for query, passage in ids:
        same |= query[:, None] == passage[None, :]
    return same & (columns >= 0)[None, :] if ids else same


def labels(id: Int[Array, " B"] | None, alias: Int[Array, " B"] | None) -> tuple[Int[Array, " B"], ...]:
    """The labels that are given."""
    return tuple(label for label in (id, alias) if label is not None)


def of_passages(queries: int, passages: int, ids: tuple[Int[Array, " B"], ...]) -> tuple[Int[Array, " N"], tuple[Int[Array, " N"], ...]]:
    """Index and labels of the passages: row i < B belongs to query i, later rows to none (index -1)."""
    beyond = (0, passages - queries)
    return jnp.pad(jnp.arange(queries), beyond, constant_values=-1), tuple(jnp.pad(label, beyond) for label in ids)


def pair_mask(ids: tuple[Int[Array, " B"], ...], queries: int, passages: int) -> Bool[Array, "B N"]:
    """The positives of a batch of `queries`, among all its `passages`."""
    columns, passage_ids = of_passages(queries, passages, ids)
    return is_positive(jnp.arange(queries), columns, tuple(zip(ids, passage_ids, strict=True)))


def check_pairs(queries: int, passages: int) -> None:
    """Refuses a batch in which some query has no passage of its own.

    Raises:
        ValueError: names the key to change.
    """
    if passages < queries:
        raise ValueError(
            f"{queries} queries but {passages} passages, so some query has no positive; "
            "let config.losses.<label>.inputs.zp name an array with a row for every query."
        )


def check_option(name: str, found: str, offered: tuple[str, ...]) -> None:
    """Refuses an option that is not offered.

    Raises:
        ValueError: lists those that are.
    """
    if found not in offered:
        raise ValueError(f"{name} is {found!r}; set config.losses.<label>.options.{name} to one of: {', '.join(offered)}.")


def present(weight: Float[Array, " B"] | None, queries: int) -> Bool[Array, " B"]:
    """Rows that are not padding: those of a weight other than 0."""
    return jnp.ones(queries, bool) if weight is None else weight != 0


def beyond(valid: Bool[Array, " B"], passages: int) -> Bool[Array, " N"]:
    """The passages that are not padding: `valid` for those of a query, and all that belong to none."""
    return jnp.pad(valid, (0, passages - valid.shape[0]), constant_values=True)


def blank(z: Array | None, weight: Float[Array, " B"] | None) -> Array | None:
    """Embeddings with zeros in padded rows, so that whatever a tower made of padding (NaN too) reaches no value and no gradient.

    Rows beyond the B of `weight` (passages that belong to no query) are kept.
    """
    if z is None or weight is None:
        return z
    return jnp.where(beyond(weight != 0, z.shape[0]).reshape(-1, *[1] * (z.ndim - 1)), z, 0)
