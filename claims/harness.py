"""Trains the runs of a claim with paired seeds, measures its arms, and writes what follows.

What is trained and measured stays in the workdir, one folder a seed and run: a second call goes on where a first was killed.
"""

import logging
import pathlib
import runpy
import shutil
import time

import numpy as np

from claims.claim import Claim, judge
from core import environment
from core.config import ConfigError
from core.workdir import write_json
from training import fit

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "claims" / "results"

log = logging.getLogger(__name__)


def measure(card: str, claim: Claim, workdir: pathlib.Path, seeds: int, *, quick: bool) -> dict:
    """Trains what is not trained, measures what is not measured, judges; the result, written unless it is a quick one."""
    if seeds < 2:
        raise ConfigError(f"--seeds={seeds}: one seed has no interval, and so no verdict; give at least 2.")
    if "," in str(workdir.absolute()):
        raise ConfigError(f"the argument of a config cannot hold the comma of {workdir.absolute()}; set --workdir to a folder without one.")
    start, items = time.monotonic(), []
    for seed in range(seeds):
        folder = workdir / (f"{card}_quick" if quick else card) / str(seed)
        items.append(items_of(claim, folder, seed, quick))
        means = ", ".join(f"{arm} {values.mean():.4f}" for arm, values in items[-1].items())
        log.info("%s seed %d of %d: %s", card, seed, seeds, means)
    result = {
        "card": card,
        "title": claim.title,
        "says": claim.says,
        "metric": claim.metric,
        "seeds": seeds,
        "arms": {arm: [float(seed[arm].mean()) for seed in items] for arm in items[0]},
        "items": len(next(iter(items[0].values()))),
        "contrasts": [judge(contrast, items) for contrast in claim.contrasts],
        "seconds_of_this_command": round(time.monotonic() - start),
        "made_by": environment.describe(),
    }
    result["verdict"] = result["contrasts"][0]["verdict"]
    write_json(workdir / f"{card}_quick.json" if quick else RESULTS / f"{card}.json", result)
    return result


def items_of(claim: Claim, folder: pathlib.Path, seed: int, quick: bool) -> dict:
    """One number for each item of every arm, from the folder if it was measured before."""
    path = folder / "items.npz"
    if not path.exists():
        made = _prepared(claim, folder.parent / "prepared", quick)
        workdirs = {run: _trained(claim, run, folder / run, seed, quick, made) for run in claim.runs}
        found = claim.measure(workdirs)
        with open(path.with_suffix(".tmp"), "wb") as file:
            np.savez_compressed(file, **found)
        path.with_suffix(".tmp").rename(path)
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _prepared(claim: Claim, folder: pathlib.Path, quick: bool) -> pathlib.Path | None:
    """The folder of what the claim's runs read, made unless it is there."""
    if claim.prepare is None:
        return None
    if not folder.exists():
        part = folder.with_suffix(".tmp")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        log.info("preparing %s", folder)
        claim.prepare(part, quick)
        part.rename(folder)
    return folder


def _trained(claim: Claim, run: str, workdir: pathlib.Path, seed: int, quick: bool, made: pathlib.Path | None) -> pathlib.Path:
    """The workdir of a run, trained to its end by the trainer that everybody uses."""
    read = {} if made is None else {"folder": made}
    if run in claim.first:
        read["first"] = workdir.parent / claim.first[run]
    paths = "".join(f",{name}={path.absolute()}" for name, path in read.items())
    config = runpy.run_path(str(claim.file))["get_config"](f"run={run}{',quick' if quick else ''}{paths}")
    with config.unlocked():
        config.seed = seed
    log.info("training %s", workdir)
    return fit(config, workdir).workdir
