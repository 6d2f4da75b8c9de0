"""The losses of a config, bound to their functions and to the names of a step's arrays."""

import inspect
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from core.config import ConfigError, bind, check_keys, check_section, choose, options_of
from losses import LOSSES


class Entry(NamedTuple):
    """One labelled loss of the config, bound: `call(**arrays)` on the arrays that `inputs` names."""

    label: str
    call: Callable
    inputs: Mapping[str, str]  # parameter to array
    optional: frozenset[str]  # parameters that may be missing
    weight: float


def entries(losses) -> list[Entry]:
    """The losses of `config.losses`.

    Raises:
        ConfigError: unknown loss, key, option or parameter.
    """
    found = []
    for label in [name for name in losses if name != "matmul_dtype"]:
        entry, key = losses[label], f"config.losses.{label}"
        check_section(entry, ("name", "inputs", "weight", "options"), key)
        target = choose(LOSSES, entry.name, f"{key}.name")
        call = bind(target, entry.options, f"{key}.options")
        if "matmul_dtype" in options_of(target) and "matmul_dtype" not in entry.options:
            call.keywords["matmul_dtype"] = losses.matmul_dtype
        arrays = [p for p in inspect.signature(target).parameters.values() if p.kind is not p.KEYWORD_ONLY]
        check_keys(entry.inputs, [p.name for p in arrays], f"{key}.inputs")
        # None leaves an optional parameter out where the batch has an array of its name.
        inputs = {p.name: entry.inputs.get(p.name, p.name) for p in arrays}
        inputs = {parameter: name for parameter, name in inputs.items() if name is not None}
        # A parameter that the config maps must be there; an unmapped one with a default may be missing.
        optional = frozenset(p.name for p in arrays if p.default is None and p.name not in entry.inputs)
        found.append(Entry(label, call, inputs, optional, entry.weight))
    if not found:
        raise ConfigError("config.losses holds no loss; add config.losses.main = dict(name='infonce', inputs=..., weight=1.0, options={}).")
    return found


def apply_entry(entry: Entry, arrays: Mapping[str, Array]) -> tuple[Array, Array, dict]:
    """Value `[R]`, weight `[R]` and metrics of one loss on a step's named arrays.

    Raises:
        ConfigError: an array that the loss needs is missing; lists what there is.
    """
    given = {}
    for parameter, name in entry.inputs.items():
        if name in arrays:
            given[parameter] = arrays[name]
        elif parameter not in entry.optional:
            raise ConfigError(
                f"config.losses.{entry.label}.inputs.{parameter} asks for {name!r}, but a step has only: {', '.join(sorted(arrays))}."
            )
    result = entry.call(**given)
    value, weight, metrics = result if isinstance(result, tuple) else (result, jnp.ones_like(result), {})
    return value, weight, metrics


def mean_loss(found: list[Entry], arrays: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
    """The weighted sum of each loss's one mean, sum(value * weight) / sum(weight) over the global batch, in nats; and the parts."""
    total, parts = jnp.zeros(()), {}
    for entry in found:
        value, weight, metrics = apply_entry(entry, arrays)
        parts[entry.label] = jnp.sum(value * weight) / jnp.maximum(jnp.sum(weight), 1e-9)
        parts |= {f"{entry.label}_{name}": s / jnp.maximum(n, 1e-9) for name, (s, n) in metrics.items()}
        total += entry.weight * parts[entry.label]
    return total, parts
