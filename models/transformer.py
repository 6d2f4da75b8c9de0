"""Pre-norm transformer blocks, their stack, and how a stack is scanned, rematerialised, hooked and captured."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from core.config import ConfigError, choose
from models.layers import ACTIVATIONS, axes, dense, dropout, layer_norm

Hook = Callable  # hook(i, x, mask) -> (x, mask), after layer i; 0 is the embeddings; i may be traced


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection for queries, keys and values."""

    heads: int = 4
    causal: bool = False
    out_std: float | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "B T w"], mask: Bool[Array, "B T"] | None = None) -> Float[Array, "B T w"]:
        width = x.shape[-1]
        if width % self.heads:
            raise ConfigError(
                f"a width of {width} does not split into {self.heads} heads; change the tower's options.heads or options.width."
            )
        head_dim = width // self.heads
        # One matrix product for the three projections; "heads" stays its own axis so that tensor sharding splits whole heads.
        kernel = self.param(
            "qkv_kernel",
            axes(
                nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", in_axis=0, out_axis=(2, 3), batch_axis=(1,)),
                "embed",
                None,
                "heads",
                "head_dim",
            ),
            (width, 3, self.heads, head_dim),
        )
        bias = self.param("qkv_bias", axes(nn.initializers.zeros, None, "heads", "head_dim"), (3, self.heads, head_dim))
        kernel, bias, x = (a.astype(self.dtype) for a in (kernel, bias, x))
        qkv = jnp.einsum("btw,wchd->cbhtd", x, kernel) + bias[:, None, :, None, :]  # [3, B, H, T, Dh]
        attended = attend(qkv[0], qkv[1], qkv[2], keep(mask, x.shape[1], self.causal))
        init = nn.initializers.xavier_uniform() if self.out_std is None else nn.initializers.normal(self.out_std)
        merged = jnp.moveaxis(attended, 1, 2).reshape(x.shape[:2] + (width,))
        return dense(width, ("heads", "embed"), init=init, dtype=self.dtype, name="out")(merged)


def keep(mask: Bool[Array, "B T"] | None, length: int, causal: bool) -> Bool[Array, "#B 1 #T T"] | None:
    """Which keys a query may look at: True = keep. None keeps all."""
    kept = None if mask is None else mask[:, None, None, :]
    if causal:
        triangle = jnp.tril(jnp.ones((1, 1, length, length), bool))
        kept = triangle if kept is None else triangle & kept
    return kept


def attend(
    q: Float[Array, "B h q d"], k: Float[Array, "B h k d"], v: Float[Array, "B h k d"], kept: Bool[Array, "#B 1 #q k"] | None
) -> Float[Array, "B h q d"]:
    """Softmax attention; scores and softmax in float32 or wider. A query without a key gets the mean of all values: mask it after."""
    wide = jnp.promote_types(q.dtype, jnp.float32)
    scores = jnp.einsum("bhqd,bhkd->bhqk", q, k, preferred_element_type=wide) * q.shape[-1] ** -0.5
    if kept is not None:
        # A large finite number: with -inf a row that keeps nothing would be NaN.
        scores = jnp.where(kept, scores, jnp.asarray(-1e9, wide))
    return jnp.einsum("bhqk,bhkd->bhqd", jax.nn.softmax(scores, axis=-1).astype(v.dtype), v)


class Mlp(nn.Module):
    """Two linear layers around an activation; the hidden width is `ratio` times the tower's."""

    ratio: float = 4.0
    activation: str = "gelu"
    in_std: float | None = None
    out_std: float | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "... w"]) -> Float[Array, "... w"]:
        inits = [nn.initializers.xavier_uniform() if s is None else nn.initializers.normal(s) for s in (self.in_std, self.out_std)]
        width = x.shape[-1]
        activation = choose(ACTIVATIONS, self.activation, "the tower's options.activation")
        x = dense(int(width * self.ratio), ("embed", "mlp"), init=inits[0], dtype=self.dtype, name="fc_in")(x)
        return dense(width, ("mlp", "embed"), init=inits[1], dtype=self.dtype, name="fc_out")(activation(x))


class Block(nn.Module):
    """x + Attention(LN(x)), then x + MLP(LN(x))."""

    heads: int = 4
    mlp_ratio: float = 4.0
    activation: str = "gelu"
    causal: bool = False
    norm_eps: float = 1e-6
    dropout: float = 0.0
    stds: tuple[float, float, float] | None = None  # attention out, MLP in, MLP out; None is Xavier uniform
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, mask=None, keys=None, index: int | Array = 0):
        attention_out, mlp_in, mlp_out = self.stds or (None, None, None)
        y = layer_norm(self.norm_eps, self.dtype, "norm_attention")(x)
        y = Attention(self.heads, self.causal, attention_out, self.dtype, name="attention")(y, mask)
        x = x + dropout(y, self.dropout, keys, 2 * index + 1)
        y = layer_norm(self.norm_eps, self.dtype, "norm_mlp")(x)
        y = Mlp(self.mlp_ratio, self.activation, mlp_in, mlp_out, self.dtype, name="mlp")(y)
        return x + dropout(y, self.dropout, keys, 2 * index + 2)


class Stack(nn.Module):
    """Blocks one after the other.

    The parameter tree always has one entry per block (`block_0`, ...): checkpoints, path patterns and interop see one form.
    `scan` stacks those entries when it runs and compiles one block instead of `layers`; `remat` recomputes a block's
    activations in the backward pass instead of keeping them.
    """

    layers: int
    block: Block
    scan: bool = False
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T w"],
        mask: Bool[Array, "B T"] | None = None,
        keys: Key[Array, " B"] | None = None,
        *,
        hook: Hook | None = None,
        keep_layers: bool = False,
    ) -> tuple[Float[Array, "B T w"], Bool[Array, "B T"] | None, Float[Array, "N B T w"] | None]:
        """Last hidden states, the mask as hooks left it, and, if asked, the states after each of the N layers."""
        if hook is not None:
            x, mask = hook(0, x, mask)
        if self.scan and not self.is_initializing():
            x, mask, layers = self._scanned(x, mask, keys, hook, keep_layers)
            return x, mask, layers
        layers = []
        block_class = nn.remat(Block) if self.remat else Block
        for index in range(self.layers):
            fields = {k: getattr(self.block, k) for k in Block.__dataclass_fields__ if k not in ("parent", "name")}
            x = block_class(**fields, name=f"block_{index}")(x, mask, keys, index)
            if hook is not None:
                x, mask = hook(index + 1, x, mask)
            layers.append(x)
        return x, mask, jnp.stack(layers) if keep_layers else None

    def _scanned(self, x, mask, keys, hook, keep_layers):
        params = self.variables["params"]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(params[f"block_{i}"] for i in range(self.layers)))
        block = self.block.clone(parent=None)

        def one(carry, layer):
            x, mask = carry
            index, layer_params = layer
            x = block.apply({"params": layer_params}, x, mask, keys, index)
            if hook is not None:
                x, mask = hook(index + 1, x, mask)
            return (x, mask), x if keep_layers else None

        one = jax.checkpoint(one, prevent_cse=False) if self.remat else one  # a scan body cannot be merged with its copy
        (x, mask), layers = jax.lax.scan(one, (x, mask), (jnp.arange(self.layers), stacked))
        return x, mask, layers
