"""The folder of a run: whole-file JSON, the config that made it, and the lock of its writer.

Parts: `config.json environment.json tokenizer/ metrics.jsonl checkpoints/<step>/ evals/<step>/<label>.json report.html done.json lock`.
"""

import contextlib
import fcntl
import json
import os
import pathlib
from typing import Any

from core import lease, storage
from core.config import ConfigError, differences, plain

DONE, BAD_LOSS = 0, 4  # exit codes that `done.json` states: nothing more will come
STOPPED = 75  # all is saved, and the same command goes on


def write_json(path: os.PathLike, value: Any) -> None:
    """Writes a file that a reader sees whole or not at all."""
    with storage.written_whole(path) as file:
        file.write((json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: os.PathLike) -> Any:
    """The content of a JSON file.

    Raises:
        FileNotFoundError: no such file.
        ConfigError: not JSON; names the file.
    """
    try:
        return json.loads(storage.as_path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not JSON ({error}); it was cut off or edited.") from error


def check_config(workdir: pathlib.Path, config, *, allow_change: bool = False) -> None:
    """Compares a config with the one that made the folder, if one did.

    What is logged and evaluated may change freely: neither alters what a step computes. A tokenizer never may: the saved
    parameters would read its tokens as others.

    Raises:
        ConfigError: the folder was made with another config; lists every differing key.
    """
    path = workdir / "config.json"
    if path.exists():
        found = differences(_comparable(read_json(path)), _comparable(plain(config)))
        if allow_change and any(line.startswith("config.data.tokenizer") for line in found):
            raise ConfigError(f"{workdir} was made with another tokenizer: {'; '.join(found)}. Choose another --workdir.")
        if found and not allow_change:
            raise ConfigError(
                f"{workdir} was made with another config; differing keys: " + "; ".join(found) +
                ". Choose another --workdir, or pass --allow_config_change to go on from its last checkpoint."
            )  # fmt: skip


def claim_config(workdir: pathlib.Path, config, *, allow_change: bool = False) -> None:
    """Writes the config of a run into its folder, after `check_config`."""
    check_config(workdir, config, allow_change=allow_change)
    write_json(workdir / "config.json", plain(config))


def _comparable(config: dict) -> dict:
    return {section: value for section, value in config.items() if section not in ("log", "evals")}


@contextlib.contextmanager
def locked(workdir: pathlib.Path, work: str = "trained", flag: str = "--workdir", name: str = "lock"):
    """Holds the folder for one writer of a kind, each with a lock file of its own `name`; the lock goes when the process does,
    however it ends. `work` and `flag` word the refusal.

    On an object store the lock is a `Lease`: that of a process killed on another machine is taken over only after a minute.

    Raises:
        ConfigError: another process holds it, or a store refuses to be written.
    """
    refusal = f"{workdir} is being {work} by %s; choose another {flag}."
    if storage.is_remote(workdir):
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(lease.Lease(f"{workdir}/", name))
            except lease.Held as holder:
                raise ConfigError(refusal % holder) from None
            except ValueError as error:
                raise ConfigError(f"{workdir} cannot be written: {error}") from error
            yield
        return
    workdir.mkdir(parents=True, exist_ok=True)
    with open(workdir / name, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ConfigError(refusal % f"process {file.read().strip() or 'unknown'}") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextlib.contextmanager
def in_turn(folder: pathlib.Path, name: str = "lock"):
    """Waits until no other process is in this block with the same folder."""
    if storage.is_remote(folder):
        with lease.Lease(f"{folder}/", name, wait=True):
            yield
        return
    with open(folder / name, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
