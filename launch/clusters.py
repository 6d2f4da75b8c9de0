"""Cluster files: where a run goes and how, apart from the recipe that it trains. And what clusters have in common.

A file below `configs/clusters/` has a `get_config(arg) -> ConfigDict` with `platform` and the fields of that platform.
"""

import hashlib
import pathlib
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from core.config import ConfigError, check_keys, check_kind, choose, plain
from launch import children, overrides, process

EVALUATE = ("python", "-m", "launch.evaluate")


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


def command(other: Sequence[str], own: Sequence[str], evaluation: str, whole: bool) -> tuple[list[str], str]:
    """What the processes of a cluster run, and where evaluation happens.

    Args:
        other: a module and its flags, as they stand after `--`; else this command line is a trainer's.
        own: flags of it that the trainer does not know.
        evaluation: where, next to a trainer.
        whole: whether the command line says all that a trainer needs.

    Raises:
        ConfigError: neither a trainer nor another module.
    """
    if other:
        return ["python", "-m", *other], "none"
    if not whole:
        raise ConfigError("give --config and --workdir; or a module of Tandem's and its flags after --, launch.doctor for example.")
    return ["python", "-m", "launch.train", *children.without(sys.argv[1:], own)], evaluation


def workdir_of(words: Sequence[str]) -> str | None:
    """What `--workdir` says."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and name == "workdir":
            return value if equals else following
    return None


def name_of(prefix: str, words: Sequence[str]) -> str:
    """The name of a command's resource: always the same for a module and a workdir, so that a command finds what an earlier one left.

    Args:
        prefix: what it begins with.
        words: of the command, from `python` on.

    Raises:
        ConfigError: the prefix is not what names may begin with.
    """
    if not re.fullmatch("[a-z][-a-z0-9]{0,15}", prefix):
        raise ConfigError(f"cluster.name is {prefix!r}; it must begin with a letter, and hold at most 16 of a-z, 0-9 and -.")
    workdir, module = (workdir_of(words) or "").rstrip("/"), words[2].removeprefix("launch.")
    label = re.sub("[^a-z0-9]+", "-", workdir.rpartition("/")[2].lower())[:16].strip("-") if workdir else ""
    key = hashlib.sha256((workdir or " ".join(words)).encode()).hexdigest()[:8]
    own = "" if module == "train" else re.sub("[^a-z0-9]+", "-", module)
    return "-".join(part for part in (prefix, label, key, own) if part)


def check_workdir(words: Sequence[str], folders: Sequence[str], key: str) -> None:
    """Refuses a workdir that only one machine would see, and that would go with it.

    Args:
        words: of the command.
        folders: that all machines share.
        key: where the cluster file says so.

    Raises:
        ConfigError: neither at gs:// nor below one of the folders.
    """
    workdir = workdir_of(words)
    if workdir and not workdir.startswith("gs://") and not any(pathlib.Path(workdir).is_relative_to(folder) for folder in folders):
        raise ConfigError(
            f"--workdir={workdir} would be a folder of each machine, and go with it; "
            f"give one at gs://BUCKET/..., or below {key} ({', '.join(folders) or 'none'})."
        )


class Child:
    """A run elsewhere, to be watched as a `subprocess.Popen` is.

    Args:
        run: does it until the end or a wish to stop, and returns its exit code.
        stop: the wish.
        say: takes a line about what was refused.
    """

    def __init__(self, run: Callable[[], int], stop: children.Stop, say: Callable[[str], None]):
        self.returncode: int | None = None
        self._run, self._stop, self._say, self._code = run, stop, say, 1
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._code = self._run()
        except ConfigError as error:
            self._code = process.CONFIG_ERROR
            self._say(" ".join(str(error).split()))

    def poll(self) -> int | None:
        """The code, once there is one."""
        self.returncode = None if self._thread.is_alive() else self._code
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        """The code, after the end or `timeout` seconds."""
        self._thread.join(timeout)
        return self.poll()

    def terminate(self) -> None:
        """Lets it save and leave."""
        self._stop.wanted = True

    def kill(self) -> None:
        """Ends it at once."""
        self._stop.wanted = self._stop.forced = True
