"""Looks at `--config=path:arg --config.a.b=value` before the flag library does, so that a mistake is one line that names the key."""

import importlib.util
import pathlib
from collections.abc import Sequence

from ml_collections import ConfigDict

from core.config import ConfigError, check_keys


def check(arguments: Sequence[str]) -> None:
    """Refuses a config that does not load, and overrides of keys that it does not have; values are left to the flag library.

    Raises:
        ConfigError: names the file or the key, the nearest valid one and all of them.
    """
    words = [word.lstrip("-") for word in arguments[1:] if word.startswith("-")]
    config = next((load(word.partition("=")[2]) for word in words if word.startswith("config=")), None)
    for word in words:
        if config is not None and word.startswith("config."):
            _walk(config, word.partition("=")[0].split(".")[1:])


def load(path_and_arg: str, flag: str = "--config") -> ConfigDict:
    """The config of `path.py:arg`, which a flag named: `--config`, or `--sweep` for what lies in `configs/sweeps/`.

    Raises:
        ConfigError: no such file, no `get_config`, or an argument that it refuses.
    """
    name, _, arg = path_and_arg.partition(":")
    path = pathlib.Path(name)
    if not path.is_file():
        folder = pathlib.Path("configs") / ("" if flag == "--config" else f"{flag.lstrip('-')}s")
        there = ", ".join(sorted(str(p) for p in folder.glob("*.py") if p.stem != "common"))
        raise ConfigError(f"{flag}={path} does not exist; there are: {there or 'none here: run from the root of the checkout'}.")
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ConfigError(f"{path} has no get_config(arg); write one that returns a ConfigDict.")
    try:
        return module.get_config(arg) if arg else module.get_config()
    except ValueError as error:
        raise ConfigError(f"{flag}={path_and_arg}: {error}") from error


def _walk(config, names: list[str]) -> None:
    key = "config"
    for name in names:
        if not isinstance(config, ConfigDict):
            raise ConfigError(f"{key} is the value {config!r}, which has no {name!r}.")
        check_keys({name: None}, list(config), key)
        config, key = config[name], f"{key}.{name}"
