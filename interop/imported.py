"""What a reader makes of another library's checkpoint."""

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from core.config import ConfigError, options_of, plain
from core.paths import by_path, from_paths
from input_pipeline import patches
from interop import mapping
from models import TOWERS, dual

log = logging.getLogger(__name__)
SIZES = frozenset(("width", "heads", "vocab_size", "length", "image_size", "grid", "patch_size", "channels"))


@dataclasses.dataclass(frozen=True)
class Imported:
    """A model in our terms.

    Args:
        model: a complete `config.model`; towers with all their options.
        params: the tree of the `DualEncoder` that `model` describes, float32.
        tokenizer: None where the folder holds none.
        transforms: `config.data.transforms` by view, as the family prepares its inputs.
        used: names of the file's tensors, each used once.
        prompts: texts put before an input, by name.
        truncate_dim: how many leading values of a vector the folder asks for; None for all.
    """

    model: dict[str, Any]
    params: dict[str, Any]
    tokenizer: Any
    transforms: dict[str, Any]
    used: tuple[str, ...]
    prompts: dict[str, str]
    truncate_dim: int | None = None


def section(towers: Mapping[str, tuple[str, Mapping]], views: Mapping[str, str] | None = None, **scale) -> dict[str, Any]:
    """A complete `config.model`.

    Args:
        towers: label to (name in TOWERS, options that differ from the defaults).
        views: view to label; by default each tower reads the view of its own label.
        scale: `temperature_init` and `logit_bias_init` where the format states them.

    Raises:
        ConfigError: a size that no tower can have; the file's config states it.
    """
    for label, (_, options) in towers.items():
        for size in SIZES.intersection(options):
            if type(options[size]) is not int or options[size] < 1:
                raise ConfigError(f"the checkpoint's config gives tower {label} a {size} of {options[size]!r}; get the file anew.")
    return {
        "towers": {label: {"name": name, "options": complete(name, options)} for label, (name, options) in towers.items()},
        "views": dict(views or {label: label for label in towers}),
        "temperature_init": scale.get("temperature_init", 0.07),
        "logit_bias_init": scale.get("logit_bias_init"),
    }


def complete(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a tower: those given over its defaults."""
    return plain(options_of(TOWERS[name]) | dict(options))


def shapes(model: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter of a `config.model`, by path; computes nothing."""
    built = dual.build(ConfigDict(model))
    examples = {view: example(built.towers[label]) for view, label in built.views.items()}
    made = nn.unbox(jax.eval_shape(partial(built.init, jax.random.key(0)), examples))["params"]
    return {path: tuple(leaf.shape) for path, leaf in by_path(made).items()}


def example(tower: nn.Module) -> np.ndarray:
    """An input of one row that a tower accepts."""
    if hasattr(tower, "vocab_size"):
        return np.zeros((1, min(2, getattr(tower, "length", 2))), np.int32)
    if not hasattr(tower, "channels"):
        return np.zeros((1, tower.width), np.float32)
    if not hasattr(tower, "image_size"):  # patches
        return np.zeros((1, 1, tower.patch_size**2 + patches.PLACES, tower.channels), np.uint8)
    return np.zeros((1, tower.image_size, tower.image_size, tower.channels), np.uint8)


def assemble(
    model: Mapping[str, Any],
    rules: Sequence[mapping.Rule],
    tensors: Mapping[str, np.ndarray],
    source: str,
    *,
    ignored: Sequence[str] = (),
    tokenizer=None,
    transforms: Mapping[str, Any] | None = None,
    prompts: Mapping[str, str] | None = None,
    truncate_dim: int | None = None,
) -> Imported:
    """Reads every tensor into the model; what no file states (a temperature, in a text encoder) starts as the model says.

    Raises:
        ConfigError: see `mapping.read`.
    """
    wanted = shapes(model)
    ruled = {path for r in rules for path in r.ours}
    stated = {"log_logit_scale": -math.log(model["temperature_init"]), "logit_bias": model["logit_bias_init"]}
    free = {path: np.float32(value) for path, value in stated.items() if path in wanted and path not in ruled}
    found, used = mapping.read(rules, tensors, {path: shape for path, shape in wanted.items() if path not in free}, source, ignored=ignored)
    log.info("%s: %d tensors read into %d parameters", source, len(used), len(found))
    return Imported(plain(model), from_paths(found | free), tokenizer, dict(transforms or {}), used, dict(prompts or {}), truncate_dim)
