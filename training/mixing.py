"""Manifold mixup: a second reading of a view in which hidden states of two inputs are mixed after one random layer.

`config.model.mixing.<label> = {views, group}`: the step has `z_<view>_<label>`, with a gradient, and beside it `share_<view>_<label>`, how
much of row i its own input is (0.5 to 1), and `partner_<view>_<label>`, the row of the other one. Partners come from fixed groups of rows
that lie together on one device: a permutation of the whole batch would send hidden states around. The layer is one for the batch and a
step, from the embeddings (0) to the last; a token counts if it counts in both inputs.

Source: Verma et al. 2019 (arXiv:1806.05236); Zhou et al. 2024 (DNABERT-S, arXiv:2402.08777).
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from core.config import ConfigError, check_section, choose
from models.dual import companions

PURPOSE = 2**31  # folded into a row's dropout key: towers fold in numbers of layers, which are small; and into the key of losses


class Mixing(NamedTuple):
    """The mixed readings of one label."""

    label: str
    views: tuple[str, ...]
    layers: tuple[int, ...]  # of each view's tower
    group: int

    def draws(self, keys: Array) -> tuple[Array, Array]:
        """Share [B] and partner in its group [B / group, group], from one key per row."""
        pair = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, PURPOSE), (2,)))(keys)
        return jnp.maximum(pair[:, 0], 1 - pair[:, 0]), jnp.argsort(pair[:, 1].reshape(-1, self.group), axis=1)

    def hooks(self, keys: Mapping[str, Array], step_key: Array) -> dict:
        """What mixes hidden states in each view's tower, for the rows that `keys` are of."""
        key = jax.random.fold_in(step_key, PURPOSE)
        depth = {view: jax.random.randint(key, (), 0, layers + 1) for view, layers in zip(self.views, self.layers, strict=True)}
        return {view: self._hook(*self.draws(keys[view]), depth[view]) for view in self.views}

    def _hook(self, share: Array, partner: Array, depth: Array):
        def mix(x, mask):
            part = share.astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
            mixed = part * x + (1 - part) * self.of_partner(x, partner)
            return mixed, None if mask is None else mask & self.of_partner(mask, partner)

        return lambda i, x, mask: jax.lax.cond(i == depth, mix, lambda x, mask: (x, mask), x, mask)

    def of_partner(self, rows: Array, partner: Array) -> Array:
        """Each row's partner's row."""
        grouped = rows.reshape(-1, self.group, *rows.shape[1:])
        index = partner.reshape(*partner.shape, *[1] * (rows.ndim - 1))
        return jnp.take_along_axis(grouped, index, axis=1).reshape(rows.shape)

    def named(self, keys: Mapping[str, Array]) -> dict[str, Array]:
        """Shares and partners as arrays of a step."""
        found = {}
        for view in self.views:
            share, partner = self.draws(keys[view])
            first = jnp.arange(0, share.shape[0], self.group)[:, None]
            found |= {f"share_{view}_{self.label}": share, f"partner_{view}_{self.label}": (first + partner).reshape(-1)}
        return found


def make(model, towers, rows: int) -> tuple[Mixing, ...]:
    """The mixed readings of `config.model`.

    Args:
        model: the config section.
        towers: the Linen modules by label.
        rows: of a device's part of a microbatch, which groups have to divide.

    Raises:
        ConfigError: an unknown key or view, a view whose tower has no layers, is a companion or reads its end-of-text token, which does
            not count where the partner is shorter, groups that do not divide the rows, or a name that a view has already.
    """
    found = []
    for label, entry in (model.mixing if "mixing" in model else {}).items():
        key = f"config.model.mixing.{label}"
        check_section(entry, ("views", "group"), key)
        read_by = [choose(model.views, view, f"{key}.views") for view in entry.views]
        unfit = [tower for tower in read_by if tower in companions(model) or not hasattr(towers[tower], "layers")]
        if unfit or not read_by:
            raise ConfigError(f"{key}.views are read by {unfit or 'nothing'}; name views of towers that train and have layers.")
        if at_end := [tower for tower in read_by if getattr(towers[tower], "pooling", "") == "eos"]:
            raise ConfigError(f"{key}: {at_end[0]} would read an end that its partner lacks; set its options.pooling to 'mean' or 'last'.")
        if entry.group < 2 or rows % entry.group:
            fits = max(n for n in range(1, min(max(entry.group, 2), rows) + 1) if rows % n == 0)
            raise ConfigError(f"{rows} rows of a device's microbatch do not split into groups of {entry.group}; set {key}.group to {fits}.")
        taken = [view for view in entry.views if f"{view}_{label}" in model.views]
        if taken:
            raise ConfigError(f"{key} would name its array as the view {taken[0]}_{label} does; choose another label.")
        found.append(Mixing(label, tuple(entry.views), tuple(towers[tower].layers for tower in read_by), entry.group))
    return tuple(found)
