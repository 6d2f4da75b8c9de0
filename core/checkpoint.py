"""Orbax checkpoints: asynchronous, atomic, each item restorable alone.

A step's folder counts only with its commit marker: Orbax itself also lists steps that are still being written.
Items: `params heads ema opt momentum carry` (arrays), `data` (the input position) and `meta` (small facts), both JSON.
"""

import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from core.storage import as_path, remove_folder, resolved

COMMIT_MARKER = "commit_success.txt"

log = logging.getLogger(__name__)


def committed_steps(folder: pathlib.Path) -> list[int]:
    """Steps whose checkpoint is complete, in order; empty where the folder is missing."""
    folder = as_path(folder)
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit() and (p / COMMIT_MARKER).exists())


def restore(folder: pathlib.Path, step: int, item: str, like: Any) -> Any:
    """One item of a checkpoint onto the shardings of `like`.

    Args:
        folder: the `checkpoints` folder of a workdir.
        step: a committed step.
        item: `params`, `heads`, `ema`, `opt`, `momentum` or `carry`.
        like: a tree of `jax.ShapeDtypeStruct` with shardings: another mesh than the one that wrote is fine.

    Raises:
        FileNotFoundError: no such step or item.
        ValueError: the tree or a shape differs.
    """
    path = resolved(folder) / str(step) / item
    if not path.is_dir():
        raise FileNotFoundError(f"{path} does not exist; the checkpoint was deleted, or written without '{item}'.")
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path, like)


def read_facts(folder: pathlib.Path, step: int, item: str = "meta") -> dict:
    """The JSON item `meta` or `data` of a checkpoint."""
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as checkpointer:
        return checkpointer.restore(resolved(folder) / str(step) / item)


def _remove_uncommitted(folder: pathlib.Path) -> None:
    """Deletes steps without a commit marker (a copy cut short, a killed upload): Orbax counts them, and saves no step up to them."""
    committed = committed_steps(folder)
    halves = [p for p in folder.glob("*") if p.name.isdigit() and int(p.name) not in committed]
    if jax.process_index() == 0:
        for half in halves:
            log.warning("%s is not a complete checkpoint; deleted", half)
            remove_folder(half)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("uncommitted checkpoints removed")


class Checkpoints:
    """Writes checkpoints in the background; holds the last `keep_last` and every `keep_every_steps`-th."""

    def __init__(self, folder: pathlib.Path, *, keep_last: int, keep_every_steps: int | None):
        self.folder = resolved(folder)
        _remove_uncommitted(self.folder)
        options = ocp.CheckpointManagerOptions(max_to_keep=keep_last, keep_period=keep_every_steps, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def save(self, step: int, items: Mapping[str, Any], *, position: int, meta: Mapping[str, Any]) -> None:
        """Starts writing; returns as soon as the arrays may change again. A step that is already committed is left as it is.

        Args:
            step: finished updates.
            items: array trees by item name; empty ones are left out.
            position: batches delivered.
            meta: JSON facts.
        """
        if step in committed_steps(self.folder):
            return
        if jax.default_backend() == "cpu":
            # A host copy of a CPU array may share its memory, which the next step's donation would write over.
            items = jax.tree.map(jnp.copy, dict(items))
        saved = {name: ocp.args.StandardSave(tree) for name, tree in items.items() if jax.tree.leaves(tree)}
        facts = {"data": ocp.args.JsonSave({"position": position}), "meta": ocp.args.JsonSave(dict(meta))}
        if not self._manager.save(step, args=ocp.args.Composite(**saved, **facts)):
            latest = self._manager.latest_step()
            raise RuntimeError(f"{self.folder} already holds step {latest}, so Orbax leaves out step {step}; move the later ones away.")

    def wait(self) -> None:
        """Returns when everything started is committed; raises what writing raised."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then stops the background threads."""
        self._manager.close()
