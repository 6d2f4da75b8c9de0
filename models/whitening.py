"""WhitenedCSE's head: groups of channels whitened over the rows of the global batch, then SimCSE's layer."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from models.layers import dense, unit


class ShuffledWhitening(nn.Module):
    """Shuffled group whitening of each input by itself, then one tanh(W x + b) for all, to unit length.

    Channels are shuffled, each input in an order of its own that is new in every step, and whitened in groups: mean 0, covariance the
    identity, over all rows that the head is given. Inputs are unit vectors, where the paper takes the state of the first token as it is.
    The head needs `key` in its inputs, the step's, unless no order matters: with one group, or with one channel to a group.

    Source: Zhuo et al. 2023 (WhitenedCSE, ACL 2023). What is not stated there is as in SimCSE.
    """

    groups: int = 128  # 0: nothing is whitened, which leaves SimCSE's head
    width: int = 0  # of the layer; 0: that of the inputs
    eps: float = 1e-6  # added to all variances; those of unit vectors are about 1 / width

    @nn.compact
    def __call__(self, key: Key[Array, ""] | None = None, **arrays: Float[Array, "B d"]) -> dict[str, Float[Array, "B e"]]:
        channels = next(iter(arrays.values())).shape[1]
        layer = dense(self.width or channels, ("embed", "output"), name="linear")
        whitened = dict(arrays)
        if self.groups and not self.is_initializing():  # which sees a single row
            _check(next(iter(arrays.values())).shape, self.groups, key)
            order = {name: _order(key, index, channels) for index, name in enumerate(sorted(arrays))}
            whitened = {name: whiten(x, self.groups, self.eps, order[name]) for name, x in arrays.items()}
        return {name: unit(jnp.tanh(layer(x))) for name, x in whitened.items()}


def whiten(x: Float[Array, "B d"], groups: int, eps: float, order: Array | None = None) -> Float[Array, "B d"]:
    """Rows whose groups of channels have mean 0 and covariance I, in float32 or wider.

    Args:
        x: rows of one batch; under `jit` those of all devices, so that the statistics are those of the global batch on every mesh.
        groups: of d / groups channels each.
        eps: added to the eigenvalues of a covariance.
        order: of the channels; neighbours in it share a group. None: as they are. The result has the order of `x`.
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    shuffled = x if order is None else x[:, order]
    parts = shuffled.reshape(x.shape[0], groups, -1)
    parts = parts - parts.mean(0, keepdims=True)
    highest = jax.lax.Precision.HIGHEST  # what is multiplied by a root of 1 / variance shows every rounding
    covariance = jnp.einsum("bgi,bgj->gij", parts, parts, precision=highest) / x.shape[0]
    parts = jnp.einsum("bgi,gij->bgj", parts, inverse_root(covariance, eps), precision=highest)
    white = parts.reshape(x.shape)
    return white if order is None else white[:, jnp.argsort(order)]


def inverse_root(c: Float[Array, "G m m"], eps: float) -> Float[Array, "G m m"]:
    """(C + eps I)^(-1/2) of each symmetric matrix (ZCA), with a gradient where eigenvalues are equal or nearly so.

    Derivatives of eigenvectors divide by differences of eigenvalues. The root does not need them: with r the roots of the eigenvalues its
    derivative has, between eigenvectors i and j, the factor -1 / (r_i r_j (r_i + r_j)) (Daleckii and Krein).
    """

    @jax.custom_jvp
    def root(c):
        return _rooted(c, eps)[0]

    @root.defjvp
    def _(primals, tangents):
        found, vectors, r = _rooted(primals[0], eps)
        inner = vectors.mT @ tangents[0] @ vectors
        factor = -1 / (r[:, :, None] * r[:, None, :] * (r[:, :, None] + r[:, None, :]))
        return found, vectors @ (factor * inner) @ vectors.mT

    with jax.default_matmul_precision("highest"):
        return root(c)


def _rooted(c, eps: float):
    """The inverse root, the eigenvectors, and the roots of the eigenvalues."""
    values, vectors = jnp.linalg.eigh(c)
    r = jnp.sqrt(jnp.maximum(values, 0) + eps)
    return (vectors / r[:, None, :]) @ vectors.mT, vectors, r


def _order(key, index: int, channels: int) -> Array | None:
    return None if key is None else jax.random.permutation(jax.random.fold_in(key, index), channels)


def _check(shape: tuple[int, int], groups: int, key) -> None:
    """Refuses groups that do not divide the channels, that have too few rows, or that nothing shuffles.

    Raises:
        ValueError: names the key to change.
    """
    rows, channels = shape
    option = "config.model.heads.<label>.options.groups"
    fits = [g for g in range(1, channels + 1) if channels % g == 0 and channels // g < rows]
    if channels % groups or channels // groups >= rows:
        nearest = min(fits, key=lambda g: abs(g - groups)) if fits else 0
        raise ValueError(
            f"{groups} groups of {channels} channels over {rows} rows; a covariance needs groups of equal size with fewer channels than "
            f"rows: set {option} to {nearest}."
        )
    if key is None and 1 < groups < channels:
        raise ValueError(
            f"{groups} groups and nothing to shuffle by; set config.model.heads.<label>.inputs.key to 'key', or {option} to 1."
        )
