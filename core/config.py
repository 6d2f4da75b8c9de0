"""Binds config sections to the code they configure; every mistake names the key to change.

Leaves the values themselves to `configs/` and the defaults to the signatures of what is bound.
"""

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict


class ConfigError(ValueError):
    """A mistake in a config: printed as one line by the launchers, which then leave with code 3."""


def _nearest(name: str, choices) -> str:
    close = difflib.get_close_matches(str(name), [str(c) for c in choices], n=1, cutoff=0.4)
    return f" Did you mean {close[0]!r}?" if close else ""


def choose(table: Mapping[str, Any], name: str, key: str) -> Any:
    """The entry of `table` that a config names.

    Args:
        table: choices by name, for example `LOSSES`.
        name: what the config says.
        key: where it says so, for example `config.losses.main.name`.

    Raises:
        ConfigError: no such entry; lists the choices and the nearest.
    """
    if name not in table:
        raise ConfigError(f"{key} is {name!r}, which is not among: {', '.join(sorted(table))}.{_nearest(name, table)}")
    return table[name]


def check_keys(section: Mapping[str, Any], allowed, key: str) -> None:
    """Refuses keys of `section` outside `allowed`.

    Raises:
        ConfigError: names the key, the nearest valid one and all of them.
    """
    for name in section:
        if name not in allowed:
            raise ConfigError(f"{key}.{name} is not a key; valid ones: {', '.join(sorted(allowed)) or 'none'}.{_nearest(name, allowed)}")


def check_section(section: Mapping[str, Any], keys, key: str, optional=()) -> None:
    """Refuses a section with unknown keys, or without one of `keys` that is not `optional`.

    Raises:
        ConfigError: names the key.
    """
    check_keys(section, keys, key)
    missing = [name for name in keys if name not in section and name not in optional]
    if missing:
        raise ConfigError(f"{key} lacks {', '.join(missing)}; it needs: {', '.join(name for name in keys if name not in optional)}.")


def options_of(target: Callable) -> dict[str, Any]:
    """Options of a function (keyword-only, with a default) or of a Linen module or class (its own fields), with defaults."""
    if inspect.isclass(target) and dataclasses.is_dataclass(target):
        return {
            f.name: f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
            for f in dataclasses.fields(target)
            if f.init and f.name not in ("parent", "name")  # the two that Linen adds to every module
        }
    parameters = inspect.signature(target).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty}


def bind(target: Callable, options: Mapping[str, Any], key: str) -> functools.partial:
    """Fixes the options of `target` from a config section; the signature is the schema.

    Args:
        target: a function with keyword-only options, or a class.
        options: the config section.
        key: its path, for example `config.losses.main.options`.

    Raises:
        ConfigError: an option that `target` does not have, or a value of another kind than the default's.
    """
    allowed = options_of(target)
    check_keys(options, allowed, key)
    for name, value in options.items():
        check_kind(value, allowed[name], f"{key}.{name}")
    return functools.partial(target, **{name: plain(value) for name, value in options.items()})


def check_kind(value: Any, default: Any, key: str) -> None:
    """Refuses a value of another kind than the default's; None, and any value where the default has no kind, may pass.

    Raises:
        ConfigError: names the key.
    """
    for kind in (bool, str, int, float, tuple, Mapping):
        if isinstance(default, kind):
            # A whole number may stand for a float, a list for a tuple.
            also = {float: (int, float), tuple: (list, tuple), Mapping: (Mapping, ConfigDict)}.get(kind, kind)
            fits = isinstance(value, bool) == (kind is bool) and isinstance(value, also)
            if value is not None and not fits:
                raise ConfigError(f"{key} is {value!r}, a {type(value).__name__}; it must be a {kind.__name__} such as {default!r}.")
            return


def picked(inputs: Mapping[str, str], arrays: Mapping[str, Any], key: str, optional=frozenset()) -> dict[str, Any]:
    """Arrays of a step by the names that a part of the config gives them; `optional` ones may be missing.

    Raises:
        ConfigError: one is missing; lists what there is.
    """
    for name, source in inputs.items():
        if source not in arrays and name not in optional:
            raise ConfigError(f"{key}.{name} asks for {source!r}, but a step has only: {', '.join(sorted(arrays))}.")
    return {name: arrays[source] for name, source in inputs.items() if source in arrays}


def plain(config: Any) -> Any:
    """A config as dicts, lists and scalars, ready for JSON."""
    if isinstance(config, ConfigDict):
        config = config.to_dict()
    if isinstance(config, Mapping):
        return {str(k): plain(v) for k, v in config.items()}
    if isinstance(config, (list, tuple)):
        return [plain(v) for v in config]
    return config


def differences(old: Any, new: Any, key: str = "config") -> list[str]:
    """One line per leaf in which two configs differ: `config.seed: 0 -> 1`."""
    old, new = plain(old), plain(new)
    if isinstance(old, dict) and isinstance(new, dict):
        names = list(old) + [n for n in new if n not in old]
        absent = "(absent)"
        return [line for n in names for line in differences(old.get(n, absent), new.get(n, absent), f"{key}.{n}")]
    same = old == new and isinstance(old, bool) == isinstance(new, bool)  # True == 1
    return [] if same else [f"{key}: {old!r} -> {new!r}"]
