"""The best checkpoint of a run, kept apart in `evals/best`, so that retention may delete it from the run.

`config.checkpoint.best` names an evaluation, and then its primary metric decides; or `<evaluation>/<metric>`.
"""

import logging
import pathlib
import shutil

from core.config import choose
from core.storage import copy_folder, exchange, mend_exchange, remove_folder
from core.workdir import in_turn, read_json, write_json
from evals.evaluation import direction

log = logging.getLogger(__name__)
ITEMS = ("params", "ema")


def check(config) -> None:
    """Refuses a `config.checkpoint.best` that names no evaluation; which metrics it has, only a result can tell.

    Raises:
        ConfigError: no such label.
    """
    if config.checkpoint.best is not None:
        choose(config.evals, config.checkpoint.best.partition("/")[0], "config.checkpoint.best")


def track(workdir: pathlib.Path, config, step: int) -> None:
    """Copies a checkpoint to `evals/best` if its result is better than that of the one there; without a result nothing happens.

    Safe beside other jobs, after a kill at any moment, and when retention deletes the checkpoint meanwhile.

    Args:
        workdir: of the run.
        config: of the run.
        step: of the checkpoint.

    Raises:
        ConfigError: the evaluation has no such metric.
    """
    if config.checkpoint.best is None:
        return
    label, _, name = config.checkpoint.best.partition("/")
    path = workdir / "evals" / str(step) / f"{label}.json"
    if not path.exists():
        return
    result = read_json(path)
    name = name or result["primary"]["name"]
    value = choose(result["metrics"], name, f"the metric of config.checkpoint.best ({config.checkpoint.best!r})")
    if value is None:  # undefined, as a correlation of a collapsed model is
        return
    with in_turn(workdir / "evals"):  # another eval job may be comparing at this moment
        folder, sign = workdir / "evals" / "best", direction(name) or 1
        fresh = folder.with_name("best.tmp")
        mend_exchange(fresh, folder, "best.json")
        kept = read_json(folder / "best.json") if (folder / "best.json").exists() else None
        if kept and (kept["evaluator"], kept["metric"]) == (label, name) and sign * kept["value"] >= sign * value:
            return
        if not _copy(workdir / "checkpoints" / str(step), fresh):
            log.warning("step %d has the best %s of %s so far, %.4f, but its checkpoint is gone", step, name, label, value)
            return
        write_json(fresh / "best.json", {"step": step, "evaluator": label, "metric": name, "value": value})
        exchange(fresh, folder, "best.json")


def _copy(checkpoint: pathlib.Path, fresh: pathlib.Path) -> bool:
    """Whether the parameters could be copied; retention may be deleting them."""
    remove_folder(fresh)
    try:
        for item in ITEMS:
            if (checkpoint / item).is_dir():
                copy_folder(checkpoint / item, fresh / item)
    except (FileNotFoundError, shutil.Error) as error:
        if checkpoint.exists():
            raise
        log.debug("%s vanished while it was copied: %s", checkpoint, error)
        return False
    return checkpoint.exists() and fresh.exists()
