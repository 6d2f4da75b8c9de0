"""From the states of a tower to what it returns: final norm, pooling by name, projection, and the inner states that were asked for."""

from collections.abc import Callable, Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from core.config import bind, choose, options_of
from models.attention_pooling import AttentionPool, LamaPool, LatentPool, LayersPool, QueryPool
from models.layers import ACTIVATIONS, dense
from models.pooling import Adapted, Eos, First, JoinedLayers, Last, LayerMix, Max, Mean, MeanSqrtLength, Pooler, WeightedMean

POOLINGS = {
    "adapted": Adapted,
    "attention": AttentionPool,
    "cls": First,
    "eos": Eos,
    "joined_layers": JoinedLayers,
    "lama": LamaPool,
    "last": Last,
    "latent": LatentPool,
    "layer_mix": LayerMix,
    "layers": LayersPool,
    "max": Max,
    "mean": Mean,
    "mean_sqrt_length": MeanSqrtLength,
    "pooler": Pooler,
    "queries": QueryPool,
    "weighted_mean": WeightedMean,
}


def make(name: str, options: Mapping, key: str, **fields) -> nn.Module:
    """The pooling that a tower names.

    Args:
        name: in `POOLINGS`.
        options: the pooling's own.
        key: where the config says so, up to `options`.
        fields: the tower's, handed to a pooling whose layers are like the tower's (its `INHERITED`) unless `options` states them.

    Raises:
        ConfigError: no such pooling or option.
    """
    pooling = choose(POOLINGS, name, f"{key}.pooling")
    inherited = {field: fields[field] for field in getattr(pooling, "INHERITED", ()) if field in fields}
    return bind(pooling, inherited | dict(options), f"{key}.pooling_options")(name="pool")


def width(name: str, options: Mapping, tower_width: int) -> int:
    """Features that a pooling returns for tokens of a width; each map of `lama` and each of `joined_layers` gives a vector of its own."""
    found = options_of(POOLINGS[name]) | dict(options) if name in POOLINGS else {}
    return tower_width * next((found[name] for name in ("maps", "joined") if name in found), 1)


def needs_layers(name: str, capture: tuple[str, ...]) -> bool:
    """Whether the states after each layer have to be kept."""
    return bool({"layers", "layers_pooled"} & set(capture)) or getattr(POOLINGS.get(name), "READS_LAYERS", False)


def read_out(
    tower: nn.Module,
    kind: str,
    x: Float[Array, "B T w"],
    layers: Float[Array, "N B T w"] | None,
    norm: Callable,
    capture: tuple[str, ...],
    mask: Bool[Array, "B T"] | None = None,
    *,
    pool_mask: Bool[Array, "B T"] | None = None,
    is_eos: Bool[Array, "B T"] | None = None,
    projection_bias: bool = False,
    projection_activation: str = "",
) -> dict[str, Float[Array, "..."]]:
    """What a tower returns: the embedding (pooled, then projected unless `embed_dim` is 0), and the inner states that were asked for.

    Args:
        tower: whose options say how; called inside its `__call__`, so that the layers made here are its own.
        kind: its name in the table of towers, for errors.
        x: last hidden states.
        layers: states after each layer, or None.
        norm: the final norm.
        capture: any of `tokens` (normed states), `layers` (as they are), `layers_pooled` `[N B d]` (each layer normed and pooled), `dense`
            `[B T d]` (each token pooled by itself: what a part of the input says in the shared space, a class token first if there is one).
        mask: tokens that attention saw.
        pool_mask: tokens of these that may be pooled.
        is_eos: end-of-text tokens.
        projection_bias: whether the projection adds one.
        projection_activation: what follows it; empty for nothing.

    Raises:
        ValueError: another name in `capture`, or layers to be pooled one by one by a pooling that reads all of them.
    """
    if unknown := set(capture) - {"dense", "tokens", "layers", "layers_pooled"}:
        raise ValueError(f"a tower has no {sorted(unknown)} to capture; choices: dense, layers, layers_pooled, tokens.")
    reads_layers = needs_layers(tower.pooling, ())
    if reads_layers and {"dense", "layers_pooled"} & set(capture):
        raise ValueError(
            f"pooling {tower.pooling!r} reads all layers at once; capture 'layers' or 'tokens', or set options.pooling to 'mean'."
        )
    fields = dict(heads=tower.heads, mlp_ratio=tower.mlp_ratio, activation=tower.activation, norm_eps=tower.norm_eps, dtype=tower.dtype)
    pool = make(tower.pooling, tower.pooling_options, f"the {kind} tower's options", **fields)
    init = nn.initializers.normal(tower.width**-0.5)
    project = lambda pooled: pooled
    if tower.embed_dim:
        linear = dense(tower.embed_dim, ("embed", "output"), init=init, use_bias=projection_bias, name="projection")
        named = ACTIVATIONS | {"": lambda x: x}
        activation = choose(named, projection_activation, f"the {kind} tower's options.projection_activation")
        project = lambda pooled: activation(linear(pooled))
    kept = pool_mask if mask is None else mask if pool_mask is None else mask & pool_mask
    finish = lambda tokens, **inner: project(pool(tokens, kept, is_eos=is_eos, visible=mask, **inner).astype(jnp.float32))
    tokens = norm(x)
    # The last layer is read as the final norm leaves it, the others as they are.
    inner = dict(layers=jnp.concatenate([layers[:-1], tokens[None]])) if reads_layers else {}
    result = {"embedding": finish(tokens, **inner)}
    result |= {"tokens": tokens} if "tokens" in capture else {}
    if "dense" in capture:
        alone = project(pool(tokens.reshape(-1, 1, tokens.shape[-1])).astype(jnp.float32))
        result["dense"] = alone.reshape(*tokens.shape[:2], -1)
    result |= {"layers": layers} if "layers" in capture else {}
    return result | ({"layers_pooled": jnp.stack([finish(norm(layer)) for layer in layers])} if "layers_pooled" in capture else {})


def projection(tower: nn.Module) -> dict[str, bool | str]:
    """How a tower's options say it is projected, as `read_out` takes it."""
    return dict(projection_bias=tower.projection_bias, projection_activation=tower.projection_activation)
