"""Trains the runs of a claim with paired seeds, measures its arms, and writes what follows.

What is trained and measured stays in the workdir, one folder a seed and run: a second call goes on where a first was killed.
"""

import logging
import pathlib
import subprocess
import sys
import time

import numpy as np

from claims.claim import Claim, judge
from core import environment
from core.config import ConfigError
from core.workdir import write_json

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "claims" / "results"

log = logging.getLogger(__name__)


def measure(card: str, claim: Claim, workdir: pathlib.Path, seeds: int, *, quick: bool) -> dict:
    """Trains what is not trained, measures what is not measured, judges; the result, written unless it is a quick one."""
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
        workdirs = {run: _trained(claim, run, folder / run, seed, quick) for run in claim.runs}
        found = claim.measure(workdirs)
        with open(path.with_suffix(".tmp"), "wb") as file:
            np.savez_compressed(file, **found)
        path.with_suffix(".tmp").rename(path)
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _trained(claim: Claim, run: str, workdir: pathlib.Path, seed: int, quick: bool) -> pathlib.Path:
    """The workdir of a run, trained to its end by the trainer that everybody uses."""
    start = f",first={(workdir.parent / claim.first[run]).resolve()}" if run in claim.first else ""
    config = f"--config={claim.file}:run={run}{',quick' if quick else ''}{start}"
    log.info("training %s", workdir)
    code = subprocess.run(
        [sys.executable, "-m", "launch.train", config, f"--config.seed={seed}", f"--workdir={workdir}"], cwd=ROOT
    ).returncode
    if code:
        raise ConfigError(f"the run in {workdir} ended with code {code}; what it says stands above. The same command goes on from there.")
    return workdir
