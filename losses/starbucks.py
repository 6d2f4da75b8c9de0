"""Starbucks: one loss for a short list of sizes, each a layer and a width, in every step; the whole model teaches the smaller ones."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from losses import positives as pairs
from losses.matryoshka import INFONCE, at_unit_length, at_width, prefix
from losses.matryoshka_2d import inner_states, of_features
from losses.similarity import cosines

KLS = ("scores", "features")


def starbucks(
    zq: Float[Array, "B d"],
    zp: Float[Array, "N d"],
    zq_layers: Float[Array, "L B d"],
    zp_layers: Float[Array, "M N d"],
    logit_scale: Float[Array, ""] | None = None,
    zn: Float[Array, "B K d"] | None = None,
    zn_layers: Float[Array, "M B K d"] | None = None,
    weight: Float[Array, " B"] | None = None,
    *,
    loss: Callable | Mapping = INFONCE,
    sizes: Sequence[Sequence[int]] = (),
    kl: str = "scores",
    kl_weight: float = 1.0,
    matmul_dtype: str = "float32",
) -> tuple[Float[Array, " B"], Float[Array, " B"], dict]:
    """Sums a loss over sizes of one model, and how far what each smaller one says is from what the whole says.

    Args:
        zq: query embeddings, unit length.
        zp: passage embeddings, unit length; row i < B belongs to query i, later rows to none.
        zq_layers: the state of each layer of the queries' tower as it would be an embedding, of any length; the last layer last.
        zp_layers: likewise of the passages.
        logit_scale: 1 / temperature, no unit; of the scores that the divergence compares. Needed for kl="scores".
        zn: hard negatives of each query, unit length.
        zn_layers: likewise of the hard negatives; needed with `zn`.
        weight: of each pair in the mean over the batch; 0 marks padding, which is also no candidate for anyone. None: all 1.
        loss: `{name, inputs, options}` of another entry of LOSSES; its arrays beside zq, zp, zn and weight are its own inputs.
        sizes: (layer, width) of each; layers count from 1, and (L, d) is among them.
        kl: "scores": KL(softmax(whole) || softmax(smaller)) over a query's scaled cosines with all passages and hard negatives, where the
            whole model gets no gradient (the published retrieval training). "features": over the first values of a vector before it has
            unit length, of query, passage and hard negatives in the mean, with a gradient for both (the published similarity training).
        kl_weight: of each divergence in the sum; published are 1 of scores and 0.3 of features. 0 leaves it out.
        matmul_dtype: of the operands of the scores' matmuls; sums are float32. float64 embeddings stay float64.

    Returns:
        Loss of each query in nats, the weight of each, the mean loss of each size as `layer<n>_dim<m>`, and that of all divergences, `kl`.

    Raises:
        ValueError: a size that the model does not have or one twice, (L, d) not among them, a choice that is not offered, no scale for
            scores, or hard negatives without their layers.

    Relations: sizes=((L, d),) is the inner loss; without divergences the sum, and so its gradient, is that of single sizes.
    Source: Zhuang et al. 2024, arXiv:2410.13230, and the released code, whose retrieval scores are products of vectors of any length;
        here, as for its similarity training, every prefix has unit length.
    """
    layers = inner_states(zq_layers, zp_layers, zn, zn_layers, weight)
    whole = (zq_layers.shape[0], zq.shape[1])
    _check(sizes, whole, kl, logit_scale)
    valid = pairs.present(weight, zq.shape[0])
    full = {name: pairs.blank(z, weight) for name, z in (("zq", zq), ("zp", zp), ("zn", zn)) if z is not None}
    given = {} if weight is None else {"weight": weight}
    total, divergence, metrics = 0.0, jnp.zeros_like(zq, shape=zq.shape[:1]), {}
    for layer, dim in sizes:
        at = full if layer == whole[0] else {name: at_unit_length(z[layer - 1]) for name, z in layers.items()}
        value, counts = at_width(loss, dim, **at, **given)
        total += value
        metrics[f"layer{layer}_dim{dim}"] = ((value * counts).sum(), counts.sum())
        if (layer, dim) != whole and kl_weight:
            if kl == "scores":
                divergence += _of_scores(full, {name: prefix(z, dim) for name, z in at.items()}, logit_scale, valid, matmul_dtype)
            else:
                divergence += of_features({name: (z[-1], z[layer - 1]) for name, z in layers.items()}, 1.0, False, dim)
    divergence = jnp.where(valid, kl_weight * divergence, 0)
    return total + divergence, counts, metrics | {"kl": ((divergence * counts).sum(), counts.sum())}


def _of_scores(whole: Mapping[str, Array], smaller: Mapping[str, Array], scale, valid, matmul_dtype: str) -> Float[Array, " B"]:
    """KL(softmax(whole) || softmax(smaller)) of each query's scores; XLA keeps about a matrix for each size."""

    def log_probabilities(z: Mapping[str, Array], scale) -> Float[Array, "B C"]:
        logits = scale * cosines(z["zq"], z["zp"], matmul_dtype)
        shown = jnp.broadcast_to(pairs.beyond(valid, z["zp"].shape[0])[None, :], logits.shape)
        if "zn" in z:
            hard = scale * cosines(z["zq"], z["zn"].reshape(-1, z["zn"].shape[2]), matmul_dtype)
            logits = jnp.concatenate([logits, hard], axis=1)
            there = jnp.repeat(valid, z["zn"].shape[1])[None, :]
            shown = jnp.concatenate([shown, jnp.broadcast_to(there, hard.shape)], axis=1)
        # The least number instead of -inf: a difference of two of them is 0.
        return jax.nn.log_softmax(jnp.where(shown, logits, jnp.finfo(logits.dtype).min / 8), axis=1)

    teacher = jax.lax.stop_gradient(log_probabilities(whole, scale))
    return (jnp.exp(teacher) * (teacher - log_probabilities(smaller, scale))).sum(1)


def _check(sizes: Sequence[Sequence[int]], whole: tuple[int, int], kl: str, logit_scale) -> None:
    pairs.check_option("kl", kl, KLS)
    found = [tuple(size) for size in sizes]
    wrong = [size for size in found if len(size) != 2 or not (1 <= size[0] <= whole[0] and 1 <= size[1] <= whole[1])]
    if wrong or len(set(found)) < len(found) or whole not in found:
        raise ValueError(
            f"sizes are {found} for {whole[0]} layers and {whole[1]} values; set config.losses.<label>.options.sizes to distinct pairs "
            f"(layer, width) up to {whole}, with {whole} among them."
        )
    if kl == "scores" and logit_scale is None:
        raise ValueError("there is no logit_scale to compare scores at; set config.losses.<label>.options.kl to 'features'.")
