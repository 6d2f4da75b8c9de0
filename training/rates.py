"""How much of the learning rate each parameter gets: by patterns of its path, and by its depth in its tower."""

from collections.abc import Iterable, Mapping

import optax

from core.config import ConfigError, check_keys
from core.paths import block_of, check_patterns, matches, tower_of

# What a tower has in front of its blocks, or for all of them; the rest outside of them (final norm, pooling, projection) is its head.
EMBEDDINGS = (r"/\w*embedding", r"/patch_", r"/class_token$", r"/relative_bias$")


def factors(paths: Iterable[str], multipliers: Mapping[str, float], layer_decay: Mapping[str, float]) -> dict[str, float]:
    """The factor on the learning rate of each parameter.

    Args:
        paths: of all parameters.
        multipliers: factor by path pattern; of several that match, the product.
        layer_decay: by tower label, what each block has of the one above it. Head and last block get 1, block i of N (from 0)
            decay^(N - 1 - i), the embeddings decay^N.

    Raises:
        ConfigError: a pattern that matches nothing, an unknown tower, one without blocks, or a factor out of range.
    """
    paths = list(paths)
    check_patterns(tuple(multipliers), paths, "config.optimizer.multipliers")
    for pattern, factor in multipliers.items():
        if not factor > 0:
            raise ConfigError(
                f"config.optimizer.multipliers has {factor} for {pattern!r}; a factor is above 0. See config.optimizer.freeze."
            )
    blocks = _blocks(paths)
    check_keys(layer_decay, blocks, "config.optimizer.layer_decay")
    for label, decay in layer_decay.items():
        if not 0 < decay <= 1:
            raise ConfigError(f"config.optimizer.layer_decay.{label} is {decay}; set it above 0 and to 1 at most, 0.8 for example.")
        if not blocks[label]:
            raise ConfigError(
                f"config.optimizer.layer_decay.{label} needs a tower with blocks/block_<i>; use config.optimizer.multipliers."
            )
    found = dict.fromkeys(paths, 1.0)
    for path in paths:
        for pattern, factor in multipliers.items():
            found[path] *= factor if matches(path, (pattern,)) else 1.0
        if tower_of(path) in layer_decay:
            found[path] *= layer_decay[tower_of(path)] ** _depth_below(path, blocks[tower_of(path)])
    return found


def _blocks(paths) -> dict[str, int]:
    """How many blocks each tower has."""
    towers = {tower_of(path) for path in paths} - {None}
    return {
        label: 1 + max((block_of(p) for p in paths if tower_of(p) == label and block_of(p) is not None), default=-1) for label in towers
    }


def _depth_below(path: str, blocks: int) -> int:
    if block_of(path) is not None:
        return blocks - 1 - block_of(path)
    return blocks if matches(path, EMBEDDINGS) else 0


def scale(by_path: Mapping[str, float]) -> optax.GradientTransformation:
    """Updates times their factor: after the optimizer, so that a factor acts on the learning rate, weight decay included."""
    return optax.stateless(lambda updates, _: {path: update * by_path[path] for path, update in updates.items()})


def summary(by_path: Mapping[str, float]) -> list[str]:
    """One line for each factor but 1, smallest first: how many parameters have it, and one of them."""
    lines = []
    for factor in sorted(set(by_path.values()) - {1.0}):
        paths = sorted(path for path, value in by_path.items() if value == factor)
        lines.append(f"learning rate x {factor:.4g} for {len(paths)} parameters such as {paths[0]}")
    return lines
