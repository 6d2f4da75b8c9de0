"""Cluster files: where a run goes and how, apart from the recipe that it trains.

A file below `configs/clusters/` has a `get_config(arg) -> ConfigDict` with `platform` and the fields of that platform.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from core.config import ConfigError, check_keys, check_kind, choose, plain
from launch import overrides


def load(path_and_arg: str, platform: str, defaults: Mapping[str, Any]) -> ConfigDict:
    """The cluster of `path.py:arg`, with a default for each field that the file leaves out.

    Args:
        path_and_arg: what `--cluster` says.
        platform: what the file must be for: `tpu`, `gke` or `slurm`.
        defaults: fields with their defaults. A type instead of a value (`str`) is a field that the file must give; a mapping with
            fields is a section, checked in the same way; an empty one takes any names.

    Raises:
        ConfigError: no such file, another platform, an unknown, missing or empty field, or a value of another kind.
    """
    found = plain(overrides.load(path_and_arg, "--cluster"))
    choose({platform: None}, found.pop("platform", None), "cluster.platform")
    return ConfigDict(_filled(found, defaults, "cluster")).lock()


def _filled(found: Mapping[str, Any], defaults: Mapping[str, Any], key: str) -> dict[str, Any]:
    check_keys(found, ("platform", *defaults) if key == "cluster" else defaults, key)
    return {name: _value(found, name, default, f"{key}.{name}") for name, default in defaults.items()}


def _value(found: Mapping[str, Any], name: str, default: Any, key: str) -> Any:
    required = isinstance(default, type)
    value = found.get(name, default)
    if required and (value is default or value == ""):
        raise ConfigError(f"{key} is not set; the cluster file must give it, as a {default.__name__}.")
    check_kind(value, default() if required else default, key)
    if value is None and default is not None:
        raise ConfigError(f"{key} is None; give it a value, or leave it out for {default!r}.")
    return _filled(value, default, key) if isinstance(default, Mapping) and default else value
