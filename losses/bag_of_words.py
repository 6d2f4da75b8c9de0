"""DupMAE's second objective: from what its tokens say together, each text picks its own words out of the vocabulary."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from losses import vocabulary


def bag_of_words(
    states: Float[Array, "B T w"],
    table: Float[Array, "V w"],
    own: Int[Array, "B T"],
    bias: Float[Array, " V"] | None = None,
    weight: Float[Array, " B"] | None = None,
    *,
    block_size: int = 64,
    matmul_dtype: str = "float32",
) -> tuple[Float[Array, " B"], Float[Array, " B"], dict]:
    """Cross-entropy of a text's distinct words under the softmax of the highest score that each word has at any of its tokens.

    Args:
        states: of tokens, as a head of `models/language_heads.py` leaves them.
        table: of words.
        own: the text's tokens; negative on tokens around it and on padding, which score nothing.
        bias: of each word. None: zeros.
        weight: of each row in the mean over the batch; 0 marks padding. None: all 1.
        block_size: tokens of each row whose scores are in memory at once.
        matmul_dtype: of the operands of the product with the table; sums are float32. float64 states stay float64.

    Returns:
        Sum over each row's distinct words, each by 1 / its number of tokens, in nats; the weight of each row, 0 for one without tokens;
        and no metrics.

    Raises:
        ValueError: blocks of nothing, or a dtype that is not offered.

    Relations: with equal scores it is log(words of the vocabulary) times distinct words / tokens. Repeats lower a row's value: the
        released code writes 1 / tokens once for each distinct word.
    Source: Xiao & Liu 2022 (DupMAE), arXiv:2211.08769, as in the released code, but for the token that ends a text.
    """
    vocabulary.check(block_size)
    mine = own >= 0 if weight is None else (own >= 0) & (weight != 0)[:, None]
    states = vocabulary.kept(states, mine)
    wide = jnp.promote_types(states.dtype, jnp.float32)
    least = jnp.asarray(jnp.finfo(wide).min, wide)  # a shift of -1000, as in the released code, is less than some biases

    @jax.checkpoint
    def block(highest, part):
        states, mine = part
        scores = vocabulary.scores(states, table, bias, matmul_dtype)
        return jnp.maximum(highest, jnp.where(mine[..., None], scores, least).max(1)), None

    start = jnp.full((states.shape[0], table.shape[0]), least)
    parts = vocabulary.blocks(states, block_size, 0), vocabulary.blocks(mine, block_size, False)
    highest = jax.lax.scan(block, start, parts)[0]  # [B V]
    tokens = mine.sum(1)
    highest = jnp.where((tokens > 0)[:, None], highest, 0)
    each = jax.nn.logsumexp(highest, axis=1, keepdims=True) - jnp.take_along_axis(highest, jnp.where(mine, own, 0), axis=1)
    value = jnp.where(first(own) & mine, each, 0).sum(1) / jnp.maximum(tokens, 1).astype(wide)
    present = (tokens > 0).astype(wide)
    return value, present if weight is None else present * weight, {}


def first(own: Int[Array, "B T"]):
    """Where a word stands for the first time in its row."""
    place = jnp.arange(own.shape[1])
    earlier = (own[:, :, None] == own[:, None, :]) & (place[None, :] < place[:, None])[None]
    return ~earlier.any(2)
