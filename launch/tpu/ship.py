"""The code of a run as one file: what a commit holds, so that a result can be traced to it."""

import os
import pathlib
import subprocess
import tempfile
from collections.abc import Mapping
from typing import NamedTuple

from core.config import ConfigError


class Code(NamedTuple):
    """What workers get."""

    name: str  # of its content
    commit: str  # with + where files differ from it


def pack(root: pathlib.Path, *, dirty: bool = False) -> Code:
    """What would be shipped from a checkout.

    Args:
        root: of the checkout.
        dirty: ship the files as they are, where they differ from the commit; those that git ignores stay here.

    Raises:
        ConfigError: no checkout, or files differ and `dirty` does not say to ship them.
    """
    head = git(root, "rev-parse", "--short=12", "HEAD")
    changed = git(root, "status", "--porcelain").splitlines()
    if not changed:
        return Code(head, head)
    if not dirty:
        names = ", ".join(line[3:] for line in changed[:5]) + (", ..." if len(changed) > 5 else "")
        raise ConfigError(
            f"{len(changed)} files differ from the commit {head}: {names}. Commit them, or ship them as they are with --dirty."
        )
    with tempfile.TemporaryDirectory() as folder:  # an index of its own: the user's stays as it is
        index = {"GIT_INDEX_FILE": str(pathlib.Path(folder) / "index")}
        git(root, "read-tree", "HEAD", variables=index)
        git(root, "add", "--all", variables=index)
        return Code(git(root, "write-tree", variables=index)[:12], head + "+")


def write(root: pathlib.Path, code: Code, path: pathlib.Path) -> None:
    """Writes the archive of a code, for `tar -xzf`."""
    git(root, "archive", "--format=tar.gz", f"--output={path}", code.name)


def git(root: pathlib.Path, *words: str, variables: Mapping[str, str] | None = None) -> str:
    """What git answers.

    Raises:
        ConfigError: what it says instead.
    """
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, env=os.environ | dict(variables or {}))
    except FileNotFoundError:
        raise ConfigError("shipping the code needs git, which is not on PATH.") from None
    if done.returncode:
        raise ConfigError(f"git {' '.join(words[:1])} in {root}: {' '.join(done.stderr.split())}; run from the root of the checkout.")
    return done.stdout.rstrip("\n")
