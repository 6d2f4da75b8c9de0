"""A trained model cut to fewer layers or narrower vectors, where it was trained so that inner layers and first values are embeddings."""

from collections.abc import Mapping
from typing import Any

from core.config import ConfigError, choose, options_of
from core.paths import by_path, from_paths
from models import TOWERS
from models.read_out import needs_layers


def to_layers(model: Mapping[str, Any], params: Mapping[str, Any], layers: int | Mapping[str, int]) -> tuple[dict, dict]:
    """The section `config.model` and the parameters without the blocks after the first `layers`; the final norm and the read-out stay.

    Args:
        model: the section as plain data.
        params: the tree of the dual encoder.
        layers: that are kept, of every tower; or by the label of a tower, the others whole.

    Raises:
        ConfigError: an unknown tower, one without layers or with fewer, or one whose pooling reads all of them.
    """
    wanted = dict(layers) if isinstance(layers, Mapping) else dict.fromkeys(model["towers"], layers)
    towers, flat = dict(model["towers"]), by_path(params)
    for label, count in wanted.items():
        entry = choose(towers, label, "layers")
        options = options_of(TOWERS[entry["name"]]) | dict(entry["options"])
        has = options["layers"] if "layers" in options else 0
        if not 1 <= count <= has:
            raise ConfigError(f"tower {label} has {has} layers, not {count}; give {{label: layers}} to cut only some towers.")
        if needs_layers(options["pooling"], ()):
            raise ConfigError(f"tower {label} pools by {options['pooling']!r}, which reads all of its layers: it cannot lose some.")
        towers[label] = {**entry, "options": {**entry["options"], "layers": count}}
        blocks = f"towers_{label}/blocks/block_"
        flat = {p: leaf for p, leaf in flat.items() if not p.startswith(blocks) or int(p.removeprefix(blocks).split("/")[0]) < count}
    return {**model, "towers": towers}, from_paths(flat)


def to_dim(model: Mapping[str, Any], params: Mapping[str, Any], dim: int) -> tuple[dict, dict]:
    """The section `config.model` and the parameters with projections that end in the first `dim` values.

    Raises:
        ConfigError: a tower without a projection, or one that ends in fewer values.
    """
    towers, flat = dict(model["towers"]), by_path(params)
    for label, entry in towers.items():
        width = (options_of(TOWERS[entry["name"]]) | dict(entry["options"]))["embed_dim"]
        if not 1 <= dim <= width:
            raise ConfigError(f"tower {label} ends in a projection to {width or 'nothing: it has none'}, which has no first {dim} values.")
        towers[label] = {**entry, "options": {**entry["options"], "embed_dim": dim}}
        for path in [path for path in flat if path.startswith(f"towers_{label}/projection/")]:
            flat[path] = flat[path][..., :dim]
    return {**model, "towers": towers}, from_paths(flat)
