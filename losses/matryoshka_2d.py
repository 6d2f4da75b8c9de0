"""Two-dimensional Matryoshka: one loss at many widths of the states of many layers, so that a model may be cut in both."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from losses import positives as pairs
from losses.matryoshka import INFONCE, at_unit_length, at_width, check_dims

LAYER_WEIGHTS = ("inverse", "uniform")
KL_WEIGHTS = ("log", "uniform")


def matryoshka_2d(
    zq: Float[Array, "B d"],
    zp: Float[Array, "N d"],
    zq_layers: Float[Array, "L B d"],
    zp_layers: Float[Array, "M N d"],
    zn: Float[Array, "B K d"] | None = None,
    zn_layers: Float[Array, "M B K d"] | None = None,
    weight: Float[Array, " B"] | None = None,
    key: Key[Array, ""] | None = None,
    *,
    loss: Callable | Mapping = INFONCE,
    dims: Sequence[int] = (),
    draw: bool = True,
    layer_weights: str = "inverse",
    kl_weights: str = "log",
    kl_weight: float = 1.0,
    temperature: float = 1.0,
    stop_teacher: bool = False,
) -> tuple[Float[Array, " B"], Float[Array, " B"], dict]:
    """Adds to a loss that of an inner layer, of the first values of both, and how far the layer's vectors are from the last one's.

    Args:
        zq: query embeddings, unit length.
        zp: passage embeddings, unit length; row i < B belongs to query i, later rows to none.
        zq_layers: the state of each layer of the queries' tower as it would be an embedding, of any length; the last layer last.
        zp_layers: likewise of the passages.
        zn: hard negatives of each query, unit length.
        zn_layers: likewise of the hard negatives; needed with `zn`.
        weight: of each pair in the mean over the batch; 0 marks padding. None: all 1.
        key: of the draws. None, with draw=True: the loss of the last layer at full width alone, for evaluation.
        loss: `{name, inputs, options}` of another entry of LOSSES; its arrays beside zq, zp, zn and weight are its own inputs.
        dims: widths, from 1 to d, which is among them; () is the full width alone, whatever the layer.
        draw: True: each step draws one inner layer n from 1 to L - 1 and one of `dims`, which is added to the full width (the full width
            drawn counts twice). False: every inner layer, whose loss is averaged over them, and every one of `dims`, which are summed.
        layer_weights: of the loss of layer n: "inverse" is 1/n, "uniform" 1.
        kl_weights: of the divergence at layer n: "log" is ln(2 + n), "uniform" 1.
        kl_weight: multiplies all of them; 0 leaves the divergence out.
        temperature: T in T KL(softmax(last / T) || softmax(layer / T)), over the features of a vector before it has unit length; of a
            query, the mean over it, its passage and its hard negatives. It is summed over inner layers.
        stop_teacher: the last layer gets no gradient from the divergence.

    Returns:
        Loss of each query in nats, the weight of each, and the means `last` (the last layer's), `inner` (the others', weighted) and `kl`.

    Raises:
        ValueError: fewer than two layers, widths as in `matryoshka`, a choice that is not offered, or hard negatives without their layers.

    Relations: dims=() with draw=False is an adaptive-layer loss; with a list it is the sum of Matryoshka losses over layers.
    Source: Li et al. 2024, arXiv:2402.14776v1; weights and the divergence's direction as in the first released code, whose teacher has a
        gradient. draw=False with "uniform" weights and stop_teacher: sentence-transformers.
    """
    layers = inner_states(zq_layers, zp_layers, zn, zn_layers, weight)
    depth = zq_layers.shape[0]
    _check(dims, zq.shape[1], depth, layer_weights, kl_weights)
    given = {name: pairs.blank(z, weight) for name, z in (("zq", zq), ("zp", zp), ("zn", zn)) if z is not None}
    given |= {} if weight is None else {"weight": weight}
    if draw and key is None:
        value, counts = at_width(loss, zq.shape[1], **given)
        return value, counts, {}
    widths = tuple(dims) or (zq.shape[1],)
    chosen = range(1, depth)
    if draw:
        of_layer, of_width = jax.random.split(key)
        chosen = (jax.random.randint(of_layer, (), 1, depth),)
        drawn = jnp.asarray(widths)[jax.random.randint(of_width, (), 0, len(widths))]
        widths = (zq.shape[1], *((drawn,) if dims else ()))
    last, counts = _over(loss, widths, given)
    inner, divergence = jnp.zeros_like(last), jnp.zeros_like(last)
    for n in chosen:
        at = {name: jax.lax.dynamic_index_in_dim(z, n - 1, keepdims=False) for name, z in layers.items()}
        factor = (1.0 / n if layer_weights == "inverse" else 1.0) / len(chosen)
        inner += factor * _over(loss, widths, given | {name: at_unit_length(z) for name, z in at.items()})[0]
        factor = jnp.log(2.0 + jnp.asarray(n, last.dtype)) if kl_weights == "log" else 1.0
        sides = {name: (z[-1], at[name]) for name, z in layers.items()}
        divergence += factor * of_features(sides, temperature, stop_teacher) if kl_weight else 0.0
    divergence = jnp.where(pairs.present(weight, zq.shape[0]), kl_weight * temperature * divergence, 0)
    mean = lambda value: ((value * counts).sum(), counts.sum())
    return last + inner + divergence, counts, {"last": mean(last), "inner": mean(inner), "kl": mean(divergence)}


def of_features(
    sides: Mapping[str, tuple[Array, Array]], temperature: float, stop_teacher: bool, dim: int | None = None
) -> Float[Array, " B"]:
    """KL(softmax(teacher / T) || softmax(student / T)) over the first `dim` features, the mean over what belongs to a query.

    Args:
        sides: (teacher, student) of `zq`, `zp` and, where there are any, `zn`, before they have unit length.
        temperature: T.
        stop_teacher: no gradient through the teacher.
        dim: all, if None.
    """
    return jnp.concatenate(list(_divergences(sides, temperature, stop_teacher, dim)), axis=1).mean(1)


def _divergences(sides, temperature, stop_teacher, dim) -> Iterator[Float[Array, "B k"]]:
    queries = sides["zq"][0].shape[0]
    for teacher, student in sides.values():
        teacher = jax.lax.stop_gradient(teacher) if stop_teacher else teacher
        # exponentials of features: bfloat16 would leave two digits of a small difference
        wide = lambda z: z[:queries, ..., :dim].astype(jnp.promote_types(z.dtype, jnp.float32)) / temperature
        ours, theirs = jax.nn.log_softmax(wide(teacher)), jax.nn.log_softmax(wide(student))
        yield (jnp.exp(ours) * (ours - theirs)).sum(-1).reshape(queries, -1)


def _over(loss: Callable, widths: Sequence, given: Mapping[str, Array]) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """The sum over widths, and the weight of each row."""
    found = [at_width(loss, dim, **given) for dim in widths]
    return sum(value for value, _ in found), found[0][1]


def inner_states(
    zq_layers: Float[Array, "L B d"], zp_layers: Float[Array, "M N d"], zn: Array | None, zn_layers: Array | None, weight: Array | None
) -> dict[str, Float[Array, "L ..."]]:
    """The states by side, without what padding holds.

    Raises:
        ValueError: a side of another depth, or hard negatives without their layers.
    """
    if (zn is None) != (zn_layers is None):
        raise ValueError("hard negatives need the states of their layers: map config.losses.<label>.inputs.zn and .zn_layers, or neither.")
    found = {name: z for name, z in (("zq", zq_layers), ("zp", zp_layers), ("zn", zn_layers)) if z is not None}
    depths = {name: z.shape[0] for name, z in found.items()}
    if len(set(depths.values())) > 1:
        raise ValueError(f"towers of different depths, {depths}; set config.model.towers.<label>.options.layers to one number.")
    return {name: jax.vmap(lambda states: pairs.blank(states, weight))(z) for name, z in found.items()}


def _check(dims: Sequence[int], width: int, depth: int, layer_weights: str, kl_weights: str) -> None:
    pairs.check_option("layer_weights", layer_weights, LAYER_WEIGHTS)
    pairs.check_option("kl_weights", kl_weights, KL_WEIGHTS)
    if depth < 2:
        raise ValueError(f"{depth} layer has none before it; set config.model.towers.<label>.options.layers to 2 or more.")
    if dims:
        check_dims(dims, width)
