"""What Hugging Face's configs say, in our words, and back."""

import math
from collections.abc import Mapping
from typing import Any

from core.config import ConfigError

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
THEIR_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "quick_gelu": "quick_gelu", "relu": "relu", "silu": "silu"}


def activation(name: str) -> str:
    """Our activation by their name.

    Raises:
        ConfigError: one that no tower has.
    """
    if name not in ACTIVATIONS:
        raise ConfigError(f"config.json states hidden_act {name!r}; known ones are: {', '.join(sorted(ACTIVATIONS))}.")
    return ACTIVATIONS[name]


def ratio(hidden: int, width: int) -> float:
    """The `mlp_ratio` for which `int(width * mlp_ratio)` is `hidden`, whatever rounding does to the quotient."""
    found = hidden / width
    return found if int(width * found) == hidden else math.nextafter(found, math.inf)


def side(value: Any, key: str) -> int:
    """One number from a size that may be written as two.

    Raises:
        ConfigError: an oblong one, or none.
    """
    sides = set(value) if isinstance(value, (list, tuple)) else {value}
    if len(sides) != 1 or not isinstance(next(iter(sides)), int):
        raise ConfigError(f"config.json states {key} {value!r}; only squares can be read.")
    return sides.pop()


def filled(config: Mapping[str, Any], defaults: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The section `key` of a config over the library's defaults, which its files leave out; `<key>_dict` of old files wins."""
    sections = [config[name] for name in (key, f"{key}_dict") if name in config and config[name] is not None]
    return dict(defaults) | {name: value for section in sections for name, value in section.items()}


def options(model: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Options of the one tower of a kind in a `config.model`.

    Raises:
        ConfigError: none or several of that kind.
    """
    found = [entry["options"] for entry in model["towers"].values() if entry["name"] == name]
    if len(found) != 1:
        kinds = {label: entry["name"] for label, entry in model["towers"].items()}
        raise ConfigError(f"the format holds one {name!r} tower, but this model has {kinds}; choose another --format.")
    return found[0]


def require(options: Mapping[str, Any], wanted: Mapping[str, Any], format: str) -> None:
    """Refuses a tower that an architecture cannot hold.

    Raises:
        ConfigError: names each option, its value and the one needed.
    """
    other = [f"{name} = {options[name]!r} (needs {value!r})" for name, value in wanted.items() if options[name] != value]
    if other:
        raise ConfigError(f"{format} cannot hold this tower: {', '.join(other)}; choose another --format.")


def absent(config: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuses a config that asks for what no tower of ours has; `wanted` holds the values that say so.

    Raises:
        ConfigError: names each key and its value.
    """
    asked = [f"{name} = {config[name]!r}" for name, value in wanted.items() if config[name] not in (value, None)]
    if asked:
        raise ConfigError(f"config.json states {', '.join(asked)}, which the towers here do not have; this model cannot be read.")
