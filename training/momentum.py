"""Momentum towers: averages of towers that train, which read a view beside them and get no gradient.

`config.model.momentum.<label> = {views, decay}`: the towers of these views have an average that starts as their copy and moves after
the optimizer. What it makes of a view is an array of a step, `z_<view>_<label>`, without dropout. Only trainable leaves are averaged;
what is frozen in a tower is shared with it.

Source: He et al. 2020 (MoCo, arXiv:1911.05722), section 3.2.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxtyping import Array

from core.config import ConfigError, check_section, choose
from core.paths import tower_of
from models.dual import companions


class Momentum(NamedTuple):
    """The averages of one label."""

    label: str
    views: tuple[str, ...]
    towers: tuple[str, ...]
    decay: float

    def begin(self, trainable: Mapping[str, Any]) -> dict[str, Any]:
        """The leaves that are averaged, by path."""
        return {path: leaf for path, leaf in trainable.items() if tower_of(path) in self.towers}

    def move(self, average: Mapping[str, Array], trainable: Mapping[str, Array]) -> dict[str, Array]:
        """The average after an update: decay * average + (1 - decay) * parameter."""
        return {path: self.decay * old + (1.0 - self.decay) * trainable[path] for path, old in average.items()}


def make(model) -> tuple[Momentum, ...]:
    """The momentum towers of `config.model`.

    Raises:
        ConfigError: an unknown key or view, a companion's view, a decay outside of 0 to 1, or a name that a view has already.
    """
    found = []
    for label, entry in (model.momentum if "momentum" in model else {}).items():
        key = f"config.model.momentum.{label}"
        check_section(entry, ("views", "decay"), key)
        towers = tuple(dict.fromkeys(choose(model.views, view, f"{key}.views") for view in entry.views))
        frozen = set(towers) & set(companions(model))
        if frozen:
            raise ConfigError(f"{key}.views are read by {', '.join(frozen)}, which never moves; name views of towers that train.")
        if not towers or not 0 <= entry.decay < 1:
            raise ConfigError(f"{key} has views {tuple(entry.views)} and decay {entry.decay}; it needs a view, and a decay such as 0.999.")
        taken = [view for view in entry.views if f"{view}_{label}" in model.views]
        if taken:
            raise ConfigError(f"{key} would name its array as the view {taken[0]}_{label} does; choose another label.")
        found.append(Momentum(label, tuple(entry.views), towers, entry.decay))
    return tuple(found)
