"""Transformer blocks, their stack, and how a stack is scanned, rematerialised, hooked and captured."""

from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from core.config import choose
from models.attention import Attention, Mask
from models.layers import ACTIVATIONS, axes, dense, dropout, layer_norm

Hook = Callable  # hook(i, x, mask) -> (x, mask), after layer i; 0 is the embeddings; i may be traced


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
        # Rounded: a ratio that a checkpoint's hidden width gave may fall just short of it.
        x = dense(round(width * self.ratio), ("embed", "mlp"), init=inits[0], dtype=self.dtype, name="fc_in")(x)
        # The backward pass computes the activation again: keeping its parts (an erf, a sum) means more arrays of this size to read.
        x = jax.checkpoint(activation)(x)
        return dense(width, ("mlp", "embed"), init=inits[1], dtype=self.dtype, name="fc_out")(x)


class GatedMlp(nn.Module):
    """activation(x U) * (x G), then a linear layer: GeGLU or SwiGLU by the activation. Source: Shazeer 2020 (arXiv:2002.05202)."""

    ratio: float = 4.0
    activation: str = "silu"
    in_std: float | None = None
    out_std: float | None = None
    dtype: str = "float32"
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "... w"]) -> Float[Array, "... w"]:
        width = x.shape[-1]
        hidden = round(width * self.ratio)
        activation = choose(ACTIVATIONS, self.activation, "the tower's options.activation")
        xavier = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", in_axis=0, out_axis=2, batch_axis=(1,))
        inits = [nn.initializers.normal(s) if s is not None else x for s, x in ((self.in_std, xavier), (self.out_std, None))]
        # One matrix product for both halves; they have an axis of their own so that tensor sharding splits each of them.
        kernel = self.param("gated_kernel", axes(inits[0], "embed", None, "mlp"), (width, 2, hidden)).astype(self.dtype)
        both = jnp.einsum("...w,wcm->...cm", x.astype(self.dtype), kernel)
        if self.use_bias:
            bias = self.param("gated_bias", axes(nn.initializers.zeros, None, "mlp"), (2, hidden))
            both = both + bias.astype(self.dtype).reshape((1,) * (x.ndim - 1) + bias.shape)
        gated = activation(both[..., 0, :]) * both[..., 1, :]
        return dense(width, ("mlp", "embed"), init=inits[1], use_bias=self.use_bias, dtype=self.dtype, name="fc_out")(gated)


class Bottleneck(nn.Module):
    """Up(relu(Down(x))), an adapter through `width` features. Up starts at zero, so that a tower starts as it is without.

    Source: Houlsby et al. 2019 (arXiv:1902.00751); its place as in Pfeiffer et al. 2020 (MAD-X, arXiv:2005.00052).
    """

    width: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "... w"]) -> Float[Array, "... w"]:
        down = dense(self.width, ("embed", None), init=nn.initializers.normal(0.02), dtype=self.dtype, name="down")(x)
        return dense(x.shape[-1], (None, "embed"), init=nn.initializers.zeros, dtype=self.dtype, name="up")(jax.nn.relu(down))


def adapt(x: Float[Array, "... w"], width: int, dtype: str, norm: Callable = lambda x: x) -> Float[Array, "... w"]:
    """The sum at the end of a block and what an adapter makes of it, normed as the block would; the sum alone for a width of 0."""
    return x + Bottleneck(width, dtype, name="adapter")(norm(x)) if width else x


class Block(nn.Module):
    """x + Attention(LN(x)), then x + MLP(LN(x)).

    Every block is called `(x, mask, keys, index, shared)`: `index` is its place in the stack, `shared` what every block
    reads, as the tower made it (rotary angles, say).
    """

    heads: int = 4
    mlp_ratio: float = 4.0
    activation: str = "gelu"
    causal: bool = False
    norm_eps: float = 1e-6
    dropout: float = 0.0
    stds: tuple[float, float, float] | None = None  # attention out, MLP in, MLP out; None is Xavier uniform
    dtype: str = "float32"
    attention_dropout: float = 0.0
    bottleneck: int = 0

    @nn.compact
    def __call__(self, x, mask=None, keys=None, index: int | Array = 0, shared=None):
        attention_out, mlp_in, mlp_out = self.stds or (None, None, None)
        y = layer_norm(self.norm_eps, self.dtype, "norm_attention")(x)
        attention = Attention(self.heads, self.causal, attention_out, self.dtype, dropout=self.attention_dropout, name="attention")
        y = attention(y, mask, keys=keys, index=index)
        x = x + dropout(y, self.dropout, keys, 2 * index + 1)
        y = layer_norm(self.norm_eps, self.dtype, "norm_mlp")(x)
        y = Mlp(self.mlp_ratio, self.activation, mlp_in, mlp_out, self.dtype, name="mlp")(y)
        return adapt(x + dropout(y, self.dropout, keys, 2 * index + 2), self.bottleneck, self.dtype)


class Stack(nn.Module):
    """Blocks one after the other.

    `block` makes every block, or is a sequence with one maker for each: `partial(Block, heads=8)`.
    The parameter tree always has one entry per block (`block_0`, ...): checkpoints, path patterns and interop see one form.
    `scan` stacks those entries when it runs and compiles one block, or one round of blocks that take turns, instead of `layers`;
    `remat` recomputes a block's activations in the backward pass instead of keeping them.
    """

    layers: int
    block: Callable[..., nn.Module] | Sequence[Callable[..., nn.Module]]
    scan: bool = False
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T w"],
        mask: Mask | None = None,
        keys: Key[Array, " B"] | None = None,
        shared=None,
        *,
        hook: Hook | None = None,
        keep_layers: bool = False,
    ) -> tuple[Float[Array, "B T w"], Mask | None, Float[Array, "N B T w"] | None]:
        """Last hidden states, the mask as hooks left it, and, if asked, the states after each of the N layers.

        Args:
            x: embeddings.
            mask: tokens that may be looked at, or which text of the row each token is of.
            keys: one dropout key per example.
            shared: handed to every block.
            hook: runs after the embeddings and each layer.
            keep_layers: return the states after each layer.
        """
        if hook is not None:
            x, mask = hook(0, x, mask)
        if keep_layers and not self.layers:
            raise ValueError("0 layers have no states to pool or to capture; set the tower's options.layers to 1 or more.")
        makers = list(self.block) if isinstance(self.block, Sequence) else [self.block] * self.layers
        unrolled, period = rounds(makers) if self.scan and not self.is_initializing() else (self.layers, 1)
        layers = []
        for index, maker in enumerate(makers[:unrolled]):
            make = nn.remat(maker.func) if self.remat else maker.func
            x = make(*maker.args, **maker.keywords, name=f"block_{index}")(x, mask, keys, index, shared)
            if hook is not None:
                x, mask = hook(index + 1, x, mask)
            layers.append(x)
        layers = [jnp.stack(layers)] if layers and keep_layers else []
        if unrolled < self.layers:
            x, mask, more = self._scanned(makers[unrolled:][:period], unrolled, x, mask, keys, shared, hook, keep_layers)
            layers += [more] if keep_layers else []
        return x, mask, jnp.concatenate(layers) if keep_layers else None

    def _scanned(self, makers, start: int, x, mask, keys, shared, hook, keep_layers: bool):
        """Rounds of `makers` over the blocks from `start` on."""
        params, period = self.variables["params"], len(makers)
        places = range(start, self.layers, period)
        stack = lambda turn: jax.tree.map(lambda *leaves: jnp.stack(leaves), *(params[f"block_{i + turn}"] for i in places))
        blocks = [maker(parent=None) for maker in makers]

        def one(carry, given):
            x, mask = carry
            first, of_round = given
            states = []
            for turn, block in enumerate(blocks):
                index = first + turn
                apply = lambda p, x, mask, index, block=block: block.apply({"params": p}, x, mask, keys, index, shared)
                apply = jax.checkpoint(apply, prevent_cse=False) if self.remat else apply  # a scan body cannot be merged with its copy
                x = apply(of_round[turn], x, mask, index)
                if hook is not None:
                    x, mask = hook(index + 1, x, mask)
                states.append(x)
            return (x, mask), jnp.stack(states) if keep_layers else None

        (x, mask), layers = jax.lax.scan(one, (x, mask), (jnp.asarray(places), [stack(turn) for turn in range(period)]))
        return x, mask, layers.reshape(-1, *x.shape) if keep_layers else None


def rounds(makers: Sequence[partial]) -> tuple[int, int]:
    """How many makers come before a pattern that repeats to the end, and its period; the fewest blocks to compile.

    [a b b b] gives (1, 1); [a b b c b b c] gives (1, 3); without a repetition all come before.
    """
    same = lambda a, b: (a.func, a.args, a.keywords) == (b.func, b.args, b.keywords)
    layers = len(makers)
    repeats = lambda start, period: all(same(makers[i], makers[i - period]) for i in range(start + period, layers))
    found = [
        (start, period)
        for start in range(layers)
        for period in range(1, (layers - start) // 2 + 1)
        if (layers - start) % period == 0 and repeats(start, period)
    ]
    return min(found, key=sum, default=(layers, 1))
