"""Heads: trainable parts of an objective, between the towers' arrays and a loss, left behind when the trained model is loaded.

`config.model.heads.<label> = {name, inputs, options}`; a head is a Linen module that gets the arrays that `inputs` names and returns named
arrays, which are arrays of the step as `<label>_<name>`. An input is

- what towers make: `z_text`, and `tokens_text`, `dense_text`, `layers_text`, `layers_pooled_text`, which they make only if a head or a loss
  names them;
- what the batch brings: views as their towers read them (`text`, `text_mask`) and columns;
- `key`, `step`, `progress`; what a head draws follows from `key`, so that a resumed run draws the same;
- a parameter by its path, `towers_text/token_embedding`: the leaf itself, with its gradient.

It sees the whole global batch at once, microbatches or not, so it may take statistics over it. Parameters are at `heads/<label>/...`.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from core.config import ConfigError, bind, check_section, choose, picked
from models import language_heads
from models.layers import axes, dense, unit
from models.whitening import ShuffledWhitening


class BatchNorm(nn.Module):
    """(x - mean) / sqrt(variance + eps) * scale + bias, both taken over the rows of the global batch; nothing is kept for evaluation."""

    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "B w"]) -> Float[Array, "B w"]:
        scale = self.param("scale", axes(nn.initializers.ones, "mlp"), x.shape[1:])
        bias = self.param("bias", axes(nn.initializers.zeros, "mlp"), x.shape[1:])
        mean = x.mean(0, keepdims=True)
        variance = jnp.square(x - mean).mean(0, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(variance + self.eps) * scale[None] + bias[None]


class Projector(nn.Module):
    """Linear layers with BatchNorm and ReLU between them, to unit length: one output for each input, with statistics of its own.

    Source: Mu et al. 2021 (SLIP, arXiv:2112.12750): 4096, 4096, 256.
    """

    widths: Sequence[int] = (4096, 4096, 256)

    @nn.compact
    def __call__(self, **arrays: Float[Array, "B d"]) -> dict[str, Float[Array, "B e"]]:
        *hidden, last = self.widths
        layers = [(dense(width, ("embed", "mlp"), name=f"linear_{i}"), BatchNorm(name=f"norm_{i}")) for i, width in enumerate(hidden)]
        end = dense(last, ("mlp", "output"), name="linear_last")

        def project(x):
            for linear, norm in layers:
                x = jax.nn.relu(norm(linear(x)))
            return unit(end(x))

        return {name: project(array) for name, array in arrays.items()}


class PairScore(nn.Module):
    """How two inputs go together, as `score [B scores]`; a loss says what the numbers mean.

    "concat": Linear, ReLU, Linear on [a, b, a b, |a - b|]. It orders pairs, but no index can search by it. "dot": w a.b + b with one w and
    one b: what an index finds is what it scores highest, and there is one score.

    Source: Barkan et al. 2020 (DSE, arXiv:1908.05161). Inputs are unit vectors; the form of "dot" is ours.
    """

    kind: str = "concat"
    width: int = 512
    scores: int = 1

    @nn.compact
    def __call__(self, one: Float[Array, "B d"], two: Float[Array, "B d"]) -> dict[str, Float[Array, "B s"]]:
        if self.kind == "concat":
            features = jnp.concatenate([one, two, one * two, jnp.abs(one - two)], axis=1)
            hidden = jax.nn.relu(dense(self.width, ("embed", "mlp"), name="linear_0")(features))
            return {"score": dense(self.scores, ("mlp", "output"), name="linear_last")(hidden)}
        if self.kind != "dot" or self.scores != 1:
            raise ValueError(
                f"kind is {self.kind!r} with {self.scores} scores; set config.model.heads.<label>.options.kind to 'concat', or to 'dot' "
                "with scores=1."
            )
        scale, bias = (
            self.param(name, axes(init), ()) for name, init in (("scale", nn.initializers.constant(10.0)), ("bias", nn.initializers.zeros))
        )
        return {"score": scale * jnp.sum(one * two, axis=1, keepdims=True) + bias}


HEADS = {
    "masked_language": language_heads.MaskedLanguage,
    "pair_score": PairScore,
    "projector": Projector,
    "retromae": language_heads.RetroMae,
    "shuffled_whitening": ShuffledWhitening,
    "starbucks_mae": language_heads.StarbucksMae,
}


class Head(NamedTuple):
    """A head of the config."""

    label: str
    module: nn.Module
    inputs: Mapping[str, str]  # its name for an array to the step's

    def pick(self, arrays: Mapping[str, Any], params: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
        """The inputs among a step's arrays and the parameters by path.

        Raises:
            ConfigError: one is missing; lists what there is.
        """
        asked = {name: source for name, source in self.inputs.items() if "/" in source}
        for name, path in asked.items():
            if path not in params:
                near = [known for known in sorted(params) if known.split("/")[0] == path.split("/")[0]] or sorted(params)
                key = f"config.model.heads.{self.label}.inputs.{name}"
                raise ConfigError(f"{key} asks for the parameter {path!r}, but there are, for example: {', '.join(near[:8])}.")
        outputs = {name: source for name, source in self.inputs.items() if name not in asked}
        of_step = picked(outputs, arrays, f"config.model.heads.{self.label}.inputs")
        return of_step | {name: params[path] for name, path in asked.items()}

    def init(self, key, arrays: Mapping[str, Any], params: Mapping[str, Any] = MappingProxyType({})):
        """First parameters with their logical axes, for arrays and parameters like these."""
        return self.module.init(key, **self.pick(arrays, params))["params"]

    def apply(self, own, arrays: Mapping[str, Array], params: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Array]:
        """What it makes of arrays and parameters with parameters of its `own`, by the step's names."""
        made = self.module.apply({"params": own}, **self.pick(arrays, params))
        return {f"{self.label}_{name}": array for name, array in made.items()}


def make(model) -> tuple[Head, ...]:
    """The heads of `config.model`.

    Raises:
        ConfigError: an unknown head, key or option, or no inputs.
    """
    found = []
    for label, entry in (model.heads if "heads" in model else {}).items():
        key = f"config.model.heads.{label}"
        check_section(entry, ("name", "inputs", "options"), key)
        module = bind(choose(HEADS, entry.name, f"{key}.name"), entry.options, f"{key}.options")()
        if not entry.inputs:
            raise ConfigError(f"{key}.inputs is empty; name what it reads, dict(one='z_image') for example.")
        found.append(Head(label, module, dict(entry.inputs)))
    return tuple(found)
