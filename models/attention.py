"""Self-attention of the transformers: projections, masks, rotary positions, grouped queries, windows."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from core.config import ConfigError
from models.layers import axes, by_rows, dense, dropout, rms_norm

SITES = 1 << 16  # where the places of dropout on attention weights begin: beyond those on states, of which a block has two
Mask = Bool[Array, "B T"] | Int[Array, "B T"]  # tokens that are looked at; or, by number, which text of the row a token is of
Rope = tuple[Float[Array, "T half"], Float[Array, "T half"]]  # cosine and sine of the angle at each position


class Attention(nn.Module):
    """Multi-head self-attention.

    Queries, keys and values come from one fused projection, or, with `kv_heads`, keys and values from one of their own:
    each of their heads then serves `heads / kv_heads` queries.
    `window` hides keys more than that many tokens away, on either side.
    `dropout` acts on the weights after the softmax, so that those kept no longer sum to one.
    """

    heads: int = 4
    causal: bool = False
    out_std: float | None = None
    dtype: str = "float32"
    in_std: float | None = None
    kv_heads: int = 0
    head_dim: int = 0  # 0: width / heads
    qkv_bias: bool = True
    out_bias: bool = True
    qk_norm_eps: float | None = None  # RMS norm of each head's queries and keys
    window: int = 0  # 0: none
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T w"],
        mask: Mask | None = None,
        rope: Rope | None = None,
        bias: Float[Array, "1 h T T"] | None = None,
        keys: Key[Array, " B"] | None = None,
        index: int | Array = 0,
    ) -> Float[Array, "B T w"]:
        width = x.shape[-1]
        if not self.head_dim and width % self.heads:
            raise ConfigError(
                f"a width of {width} does not split into {self.heads} heads; change the tower's options.heads or options.width."
            )
        if self.kv_heads and self.heads % self.kv_heads:
            raise ConfigError(
                f"{self.heads} heads do not share {self.kv_heads} key-value heads; change the tower's options.heads or options.kv_heads."
            )
        head_dim = self.head_dim or width // self.heads
        q, k, v = self._grouped(x, head_dim) if self.kv_heads else self._fused(x, head_dim)
        if self.qk_norm_eps is not None:
            q, k = rms_norm(self.qk_norm_eps, self.dtype, "query_norm")(q), rms_norm(self.qk_norm_eps, self.dtype, "key_norm")(k)
        if rope is not None:
            q, k = rotate(q, rope), rotate(k, rope)
        drop = lambda group: lambda weights: dropout(weights, self.dropout, keys, SITES + self.heads * index + group)
        attended = self._attend(q, k, v, mask, bias, drop)
        init = nn.initializers.xavier_uniform() if self.out_std is None else nn.initializers.normal(self.out_std)
        merged = jnp.moveaxis(attended, 1, 2).reshape(x.shape[:2] + (self.heads * head_dim,))
        return dense(width, ("heads", "embed"), init=init, use_bias=self.out_bias, dtype=self.dtype, name="out")(merged)

    def _fused(self, x, head_dim: int):
        return self._project(x, "qkv", (3, self.heads, head_dim), (None, "heads", "head_dim"))

    def _grouped(self, x, head_dim: int):
        keys_and_values = self._project(x, "kv", (2, self.kv_heads, head_dim), (None, "heads", "head_dim"))
        return self._project(x, "q", (self.heads, head_dim), ("heads", "head_dim")) + keys_and_values

    def _project(self, x, name: str, shape: tuple[int, ...], names: tuple[str | None, ...]) -> list[Array]:
        """One matrix product for parts that lie side by side; "heads" stays its own axis so that tensor sharding splits whole heads."""
        batch, out = tuple(range(1, len(shape) - 1)), (len(shape) - 1, len(shape))
        xavier = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", in_axis=0, out_axis=out, batch_axis=batch)
        init = xavier if self.in_std is None else nn.initializers.normal(self.in_std)
        kernel = self.param(f"{name}_kernel", axes(init, "embed", *names), (x.shape[-1], *shape)).astype(self.dtype)
        projected = by_rows(x.astype(self.dtype), kernel)  # [B T (parts) H Dh]
        if self.qkv_bias:
            projected = projected + self.param(f"{name}_bias", axes(nn.initializers.zeros, *names), shape).astype(self.dtype)[None, None]
        # Each part is moved by itself: XLA then reads it in place, where all at once would be copied (a tenth of BERT's time on CPU).
        parts = [projected] if len(shape) == 2 else [projected[:, :, i] for i in range(shape[0])]
        return [jnp.moveaxis(part, 1, 2) for part in parts]

    def _attend(self, q, k, v, mask, bias, drop):
        near = bias is None and 0 < BLOCKED_FROM * self.window < q.shape[2] and not packed(mask)
        one = lambda q, group: (
            attend_near(q, k, v, mask, self.window, self.causal, drop(group))
            if near
            else attend(q, k, v, keep(mask, q.shape[2], self.causal, self.window), bias, drop(group))
        )
        if not self.kv_heads:
            return one(q, 0)
        # Query head h reads key-value head h // group.
        grouped = q.reshape(q.shape[0], self.kv_heads, -1, *q.shape[2:])
        return jax.vmap(one, in_axes=(2, 0), out_axes=2)(grouped, jnp.arange(grouped.shape[2])).reshape(q.shape)


# A block of CHUNKS windows of queries computes scores with CHUNKS + 2 windows of keys. Texts of more than BLOCKED_FROM windows are faster
# so: on two cores, 2,048 tokens in 12 heads of 64 with a window of 64, forward and with gradients, took 36 and 84 ms in texts of 384
# (all keys: 54 and 101), 39 and 83 in texts of 1,024 (108 and 305), but 37 and 85 in texts of 256 (27 and 69).
CHUNKS = 2
BLOCKED_FROM = 5


def packed(mask: Mask | None) -> bool:
    """Whether a mask says which of a row's texts a token is of."""
    return mask is not None and mask.dtype != bool


def keep(mask: Mask | None, length: int, causal: bool, window: int = 0) -> Bool[Array, "#B 1 #T T"] | None:
    """Which keys a query may look at: True = keep. None keeps all; in a row of several texts each looks at itself."""
    place = jnp.arange(length)
    away = place[:, None] - place[None, :]
    own = lambda texts: (texts[:, :, None] == texts[:, None, :])[:, None]
    parts = [] if mask is None else [own(mask) if packed(mask) else mask[:, None, None, :]]
    parts += [(away >= 0)[None, None]] if causal else []
    parts += [(abs(away) <= window)[None, None]] if 0 < window < length - 1 else []
    return functools.reduce(jnp.logical_and, parts) if parts else None


def attend(
    q: Float[Array, "*b q d"],
    k: Float[Array, "*b k d"],
    v: Float[Array, "*b k d"],
    kept: Bool[Array, "*#b #q k"] | None,
    bias: Float[Array, "*#b q k"] | None = None,
    drop: Callable[[Array], Array] = lambda weights: weights,
) -> Float[Array, "*b q d"]:
    """Softmax attention; scores and softmax in float32 or wider. A query without a key gets the mean of all values: mask it after.

    `drop` is done to the weights.
    """
    wide = jnp.promote_types(q.dtype, jnp.float32)
    scores = jnp.einsum("...qd,...kd->...qk", q, k, preferred_element_type=wide) * q.shape[-1] ** -0.5
    if bias is not None:
        scores = scores + bias.astype(wide)
    if kept is not None:
        # A large finite number: with -inf a row that keeps nothing would be NaN.
        scores = jnp.where(kept, scores, jnp.asarray(-1e9, wide))
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    attended = jnp.einsum("...qk,...kd->...qd", drop(weights).astype(v.dtype), v, preferred_element_type=wide)
    # Divided after the product: that has Dh numbers a query, the weights have T.
    return (attended / weights.sum(axis=-1, keepdims=True)).astype(v.dtype)


def attend_near(
    q: Float[Array, "B h T d"],
    k: Float[Array, "B h T d"],
    v: Float[Array, "B h T d"],
    mask: Bool[Array, "B T"] | None,
    window: int,
    causal: bool,
    drop: Callable[[Array], Array] = lambda weights: weights,
) -> Float[Array, "B h T d"]:
    """Softmax attention to keys at most `window` away: a block of `CHUNKS` windows of queries sees itself and a window on either side.

    `drop` is done to the weights `[B h blocks q k]`.
    Time and memory grow with T x window; a [T T] matrix never exists.
    """
    length, ahead = q.shape[2], 0 if causal else 1
    blocks = -(-length // (CHUNKS * window))
    fill = blocks * CHUNKS * window - length
    mask = jnp.ones((1, length), bool) if mask is None else mask

    def around(a, axis: int):
        """[..., blocks, keys of a block and around it, ...]: chunks of one window, each a strided slice."""
        widths = [(0, 0)] * a.ndim
        widths[axis] = (window, fill + ahead * window)
        a = jnp.pad(a, widths)
        a = a.reshape(*a.shape[:axis], -1, window, *a.shape[axis + 1 :])
        last = (blocks - 1) * CHUNKS + 1
        return jnp.concatenate([jax.lax.slice_in_dim(a, j, j + last, CHUNKS, axis) for j in range(CHUNKS + 1 + ahead)], axis + 1)

    queries = jnp.pad(q, ((0, 0), (0, 0), (0, fill), (0, 0))).reshape(*q.shape[:2], blocks, -1, q.shape[3])
    away = jnp.arange(CHUNKS * window)[:, None] + window - jnp.arange((CHUNKS + 1 + ahead) * window)[None, :]
    band = (abs(away) <= window) & (away >= 0 if causal else True)
    kept = band[None, None] & around(mask, 1)[:, :, None]  # [B blocks q k]
    attended = attend(queries, around(k, 2), around(v, 2), kept[:, None], drop=drop)
    return attended.reshape(*q.shape[:2], -1, q.shape[3])[:, :, :length]


def rotate(x: Float[Array, "B h T d"], rope: Rope) -> Float[Array, "B h T d"]:
    """Turns each pair (i, i + d/2) of features by the angle of its position, in float32 or wider."""
    cos, sin = (table[None, None] for table in rope)
    first, second = jnp.split(x.astype(jnp.promote_types(x.dtype, jnp.float32)), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)
