"""The dual encoder: which tower reads which view of a batch, and the learned scale and bias of the logits."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from core.config import ConfigError, bind, check_section, choose
from models import TOWERS
from models.layers import axes, unit

LOG_SCALE_MAX = math.log(100.0)  # CLIP: a larger scale was unstable
CAPTURES = ("dense", "layers", "layers_pooled", "tokens")  # what a tower returns beside its embedding where somebody reads it


class DualEncoder(nn.Module):
    """Applies each view's tower and names what comes out.

    `towers` holds a Linen module per label; `views` maps a view of the batch to a label, and two views may share one. `companions` are
    towers that only a loss looks at (a guide, a teacher): frozen, without dropout, of a width of their own.
    """

    towers: Mapping[str, nn.Module]
    views: Mapping[str, str]
    companions: tuple[str, ...] = ()
    temperature_init: float = 0.07
    logit_bias_init: float | None = None

    def setup(self):
        self.log_logit_scale = self.param("log_logit_scale", axes(nn.initializers.constant(-math.log(self.temperature_init))), ())
        if self.logit_bias_init is not None:
            self.logit_bias = self.param("logit_bias", axes(nn.initializers.constant(self.logit_bias_init)), ())

    @nn.nowrap
    def reads(self, name: str) -> bool:
        """Whether an array of a batch is a view, or one of its masks or places."""
        return bool(of_views({name: None}, self.views))

    def __call__(
        self,
        batch: Mapping[str, Array],
        keys: Mapping[str, Key[Array, " B"]] | None = None,
        capture: Mapping[str, tuple[str, ...]] | None = None,
        hooks: Mapping[str, object] | None = None,
    ) -> dict[str, Array]:
        """Named arrays of a step: `z_<view>` of unit length, `<output>_<view>` as captured, `logit_scale`, `logit_bias`.

        Args:
            batch: views by name; beside a view with padding `<view>_mask`, beside texts `<view>_pool_mask` where some of their tokens
                (an instruction) are read but not pooled, and `<view>_places` instead of both where they share rows. Views that the batch
                lacks are left out.
            keys: one dropout key per example and view; None switches dropout off.
            capture: extra outputs per view (`tokens`, `layers`, `layers_pooled`).
            hooks: a layer hook per view.
        """
        arrays = {"logit_scale": jnp.exp(self.log_logit_scale)}
        if self.logit_bias_init is not None:
            arrays["logit_bias"] = self.logit_bias
        for view in [v for v in self.views if v in batch]:
            asked = tuple((capture or {}).get(view, ()))
            key = None if self.views[view] in self.companions else (keys or {}).get(view)
            inputs = (batch[view], batch.get(f"{view}_mask"), key, asked, (hooks or {}).get(view))
            out = self.encode(view, *inputs, batch.get(f"{view}_pool_mask"), batch.get(f"{view}_places"))
            arrays |= {f"z_{view}" if name == "embedding" else f"{name}_{view}": array for name, array in out.items()}
        return arrays

    def encode(
        self, view: str, x: Array, mask: Array | None = None, keys=None, capture: tuple[str, ...] = (), hook=None, pool_mask=None,
        places=None,
    ) -> dict[str, Array]:  # fmt: skip
        """One view through its tower; an extra axis (`[B K T]`, hard negatives) is folded into the batch and back."""
        tower = self.towers[self.views[view]]
        folded = x.ndim == 3
        if folded:
            shape = x.shape
            x, mask, pool_mask, places = (None if a is None else a.reshape(-1, *a.shape[2:]) for a in (x, mask, pool_mask, places))
            keys = None if keys is None else jax.vmap(lambda key: jax.random.split(key, shape[1]))(keys).reshape(-1)
        if places is not None and hook is not None:
            raise ConfigError(f"a hook looks at texts in rows of their own; set config.data.transforms.{view}.name to 'tokenize'.")
        only_text = {name: a for name, a in (("pool_mask", pool_mask), ("places", places)) if a is not None}
        out = dict(tower(x, mask, keys, capture=capture, hook=hook, **only_text))
        out["embedding"] = unit(out["embedding"])
        unfold = lambda a, axis: a.reshape(a.shape[:axis] + shape[:2] + a.shape[axis + 1 :])
        return {name: unfold(a, row_axis(name)) for name, a in out.items()} if folded else out


def row_axis(name: str) -> int:
    """Which axis of a tower's output, or of an array of a step, has the rows of the batch: states of all layers are `[N rows ...]`."""
    return int(name.startswith("layers"))


def captures(names: Iterable[str], views: Iterable[str], label: str = "") -> dict[str, tuple[str, ...]]:
    """Which inner states the towers have to return, by view, so that a step has the arrays of these names.

    Args:
        names: of arrays, `layers_pooled_text` for example; others than inner states are passed over.
        views: that are read.
        label: of a second reading (a momentum tower, a mixture), whose arrays are named `<output>_<view>_<label>`.
    """
    wanted, end = set(names), f"_{label}" if label else ""
    found = {view: tuple(output for output in CAPTURES if f"{output}_{view}{end}" in wanted) for view in views}
    return {view: outputs for view, outputs in found.items() if outputs}


def of_views(batch: Mapping[str, Any], views) -> dict[str, Any]:
    """These views of a batch, with their masks and places."""
    view = lambda name: name.removesuffix("_places").removesuffix("_mask").removesuffix("_pool")
    return {name: array for name, array in batch.items() if name in views or view(name) in views}


def build(model, vocab_size: int | None = None) -> DualEncoder:
    """The dual encoder that `config.model` describes.

    Args:
        model: the config section: `towers.<label> = {name, options}`, `views.<view> = <label>`, `temperature_init`, `logit_bias_init`.
            `towers.<label>.init` (first weights), `adapters` (`models/adapters.py`), `momentum`, `mixing` and `heads` change no tower, so
            they are not read here; `companions` are labels of towers.
        vocab_size: of the run's tokenizer, if it has one.

    Raises:
        ConfigError: unknown keys or choices, a view of an unknown tower, towers beside companions that do not share an output width,
            or a vocabulary larger than a text tower's table.
    """
    beyond = ("companions", "momentum", "mixing", "heads", "adapters")
    check_section(model, ("towers", "views", *beyond, "temperature_init", "logit_bias_init"), "config.model", optional=beyond)
    beside = companions(model)
    towers = {}
    for label, entry in model.towers.items():
        key = f"config.model.towers.{label}"
        check_section(entry, ("name", "options", "init"), key, optional=("init",))
        towers[label] = bind(choose(TOWERS, entry.name, f"{key}.name"), entry.options, f"{key}.options")()
        size = getattr(towers[label], "vocab_size", None)
        if size is not None and vocab_size is not None and vocab_size > size:
            raise ConfigError(
                f"{key}.options.vocab_size is {size}, but the tokenizer has {vocab_size} tokens; set it to at least {vocab_size}."
            )
    for view, label in model.views.items():
        choose(towers, label, f"config.model.views.{view}")
    for label in beside:
        choose(towers, label, "config.model.companions")
    dims = {label: tower.output_dim for label, tower in towers.items() if label not in beside}
    if len(set(dims.values())) > 1:
        raise ConfigError(f"towers must end in one shared width, found {dims}; change config.model.towers.<label>.options.embed_dim.")
    scalars = dict(temperature_init=model.temperature_init, logit_bias_init=model.logit_bias_init)
    return DualEncoder(towers=towers, views=dict(model.views), companions=beside, **scalars)


def companions(model) -> tuple[str, ...]:
    """Labels of the towers that only losses look at."""
    return tuple(model.companions) if "companions" in model else ()  # a config of other origin may do without


def alone(model):
    """The section `config.model` without what only losses look at: what is left after training."""
    left, gone = model.copy_and_resolve_references(), companions(model)
    with left.unlocked():
        left.companions, left.momentum, left.mixing, left.heads = (), {}, {}, {}
        left.towers = {label: tower for label, tower in model.towers.items() if label not in gone}
        left.views = {view: label for view, label in model.views.items() if label not in gone}
    return left
