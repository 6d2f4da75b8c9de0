"""Each token that is asked for picks itself out of the vocabulary: masked language modelling, and rebuilding a text from its vector."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from losses import vocabulary


def masked_language(
    states: Float[Array, "B T w"],
    table: Float[Array, "V w"],
    target: Int[Array, "B T"],
    bias: Float[Array, " V"] | None = None,
    weight: Float[Array, " B"] | None = None,
    *,
    block_size: int = 64,
    matmul_dtype: str = "float32",
) -> tuple[Float[Array, " B"], Float[Array, " B"], dict]:
    """Cross-entropy of a word's score, states times its row of the table plus its bias, against the whole vocabulary.

    Args:
        states: of tokens, as a head of `models/language_heads.py` leaves them.
        table: of words.
        target: the word asked for at each token; negative where nothing is.
        bias: of each word. None: zeros.
        weight: of each row in the mean over the batch, beside its number of tokens; 0 marks padding. None: all 1.
        block_size: tokens of each row whose scores are in memory at once.
        matmul_dtype: of the operands of the product with the table; sums are float32. float64 states stay float64.

    Returns:
        Mean over the tokens that each row is asked for in nats (0 where there are none), their number times the row's weight, and the
        share of them whose own word scores highest.

    Raises:
        ValueError: blocks of nothing, or a dtype that is not offered.

    Relations: with equal scores it is the log of the number of words. A step's mean is that over all tokens of the global batch.
    Source: Devlin et al. 2019, arXiv:1810.04805; as RetroMAE's decoder, Xiao & Liu 2022, arXiv:2205.12035.
    """
    vocabulary.check(block_size)
    asked = target >= 0 if weight is None else (target >= 0) & (weight != 0)[:, None]
    states = vocabulary.kept(states, asked)

    @jax.checkpoint
    def block(_, part):
        states, target = part
        scores = vocabulary.scores(states, table, bias, matmul_dtype)
        own = jnp.take_along_axis(scores, target[..., None], axis=2)[..., 0]
        return None, (jax.nn.logsumexp(scores, axis=2) - own, own >= scores.max(2))

    parts = vocabulary.blocks(states, block_size, 0), vocabulary.blocks(jnp.where(asked, target, 0), block_size, 0)
    whole = lambda a: jnp.moveaxis(a, 0, 1).reshape(asked.shape[0], -1)[:, : asked.shape[1]]
    loss, right = (whole(a) for a in jax.lax.scan(block, None, parts)[1])
    count = asked.sum(1).astype(loss.dtype)
    value = jnp.where(asked, loss, 0).sum(1) / jnp.maximum(count, 1)
    metrics = {"accuracy": ((right & asked).sum().astype(loss.dtype), count.sum())}
    return value, count if weight is None else count * weight, metrics
