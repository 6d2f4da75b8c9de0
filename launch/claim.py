"""Measures a method's claim: trains its runs with paired seeds, compares its arms, writes `claims/results/<card>.json`.

python -m launch.claim X04 [--seeds=5] [--quick] [--workdir=runs/claims]
python -m launch.claim --table

What is trained and measured is kept in the workdir, one folder a seed and run: the same command goes on after a kill.
"""

import pathlib
import subprocess
import sys
import time

from absl import flags

from launch import process

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "claims" / "results"
TABLE = ROOT / "docs" / "claims.md"

_SEEDS = flags.DEFINE_integer("seeds", 5, "paired seeds, from 0 on")
_QUICK = flags.DEFINE_bool("quick", False, "shortened runs and two seeds: shows that the claim can be measured, and writes no result")
_WORKDIR = flags.DEFINE_string("workdir", "runs/claims", "folder of the runs")
_TABLE = flags.DEFINE_bool("table", False, "only write docs/claims.md from the results that are there")


def main(arguments) -> None:
    process.start()
    from claims import CLAIMS
    from core.config import ConfigError, choose

    with process.exit_codes():
        if _TABLE.value:
            TABLE.write_text(table(RESULTS), encoding="utf-8")
            print(TABLE)
            return
        if len(arguments) != 2:
            raise ConfigError(f"give one claim: python -m launch.claim CARD; there are: {', '.join(CLAIMS)}.")
        card = arguments[1]
        found = measure(card, choose(CLAIMS, card, "the claim"), _WORKDIR.value, 2 if _QUICK.value else _SEEDS.value, quick=_QUICK.value)
        print(summary(found))


def measure(card: str, claim, workdir: str, seeds: int, *, quick: bool) -> dict:
    """Trains what is not trained, measures what is not measured, judges; the result, written unless it is a quick one."""
    from claims.claim import judge
    from core import environment
    from core.workdir import write_json

    start, items = time.monotonic(), []
    for seed in range(seeds):
        folder = pathlib.Path(workdir) / (f"{card}_quick" if quick else card) / str(seed)
        items.append(_items(claim, folder, seed, quick))
        means = ", ".join(f"{arm} {values.mean():.4f}" for arm, values in items[-1].items())
        process.log.info("%s seed %d of %d: %s", card, seed, seeds, means)
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
    write_json(pathlib.Path(workdir) / f"{card}_quick.json" if quick else RESULTS / f"{card}.json", result)
    return result


def _items(claim, folder: pathlib.Path, seed: int, quick: bool) -> dict:
    """One number for each item of every arm, from the folder if it was measured before."""
    import numpy as np

    path = folder / "items.npz"
    if not path.exists():
        workdirs = {run: _trained(claim, run, folder / run, seed, quick) for run in claim.runs}
        found = claim.measure(workdirs)
        with open(path.with_suffix(".tmp"), "wb") as file:
            np.savez_compressed(file, **found)
        path.with_suffix(".tmp").rename(path)
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _trained(claim, run: str, workdir: pathlib.Path, seed: int, quick: bool) -> pathlib.Path:
    """The workdir of a run, trained to its end by the trainer that everybody uses."""
    from core.config import ConfigError

    config = f"--config={claim.file}:run={run}{',quick' if quick else ''}"
    process.log.info("training %s", workdir)
    code = subprocess.run(
        [sys.executable, "-m", "launch.train", config, f"--config.seed={seed}", f"--workdir={workdir}"], cwd=ROOT
    ).returncode
    if code:
        raise ConfigError(f"the run in {workdir} ended with code {code}; what it says stands above. The same command goes on from there.")
    return workdir


def summary(result: dict) -> str:
    """A short table of a result."""
    lines = [
        f"{result['card']} {result['title']}: {result['says']}",
        f"{result['metric']}, {result['seeds']} seeds, {result['items']} items",
    ]
    width = max(map(len, result["arms"]))
    lines += [f"  {arm:<{width}}  {sum(values) / len(values):.4f}" for arm, values in result["arms"].items()]
    lines += [f"  {_contrast(found)}: {_interval(found)}, {found['verdict']}" for found in result["contrasts"]]
    return "\n".join([*lines, f"verdict: {result['verdict']}"])


def _contrast(found: dict) -> str:
    return f"{found['arm']} - {found['against']}"


def _interval(found: dict) -> str:
    low, high = found["interval"]
    return f"{found['mean']:+.4f} [{low:+.4f}, {high:+.4f}]"


def table(folder: pathlib.Path) -> str:
    """`docs/claims.md`: every result of a folder."""
    from core.workdir import read_json

    found = [read_json(path) for path in sorted(folder.glob("*.json"))]
    lines = [
        "# Claims",
        "",
        "What each method was said to do, and what paired seeds showed of it. Arms, metric, direction and the smallest difference of",
        "interest stand in `claims/<card>_<name>.py` and were fixed before the runs. Intervals are 95% by a paired t-test over seeds, in",
        "brackets; a verdict is `underpowered` where half the interval is wider than that smallest difference. Written by",
        "`python -m launch.claim --table`.",
        "",
        "| card | claim | metric | difference | smallest | verdict | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in found:
        first = result["contrasts"][0]
        cells = (
            result["card"],
            result["says"],
            result["metric"],
            f"{_contrast(first)}: {_interval(first)}",
            first["smallest"],
            result["verdict"],
        )
        lines.append("| " + " | ".join(map(str, (*cells, result["seeds"]))) + " |")
    for result in found:
        lines += ["", f"## {result['card']} {result['title']}", "", f"| arm | {result['metric']} by seed | mean |", "|---|---|---|"]
        for arm, values in result["arms"].items():
            lines.append(f"| {arm} | {', '.join(f'{value:.4f}' for value in values)} | {sum(values) / len(values):.4f} |")
        lines += ["", "| difference | over seeds | over items | verdict |", "|---|---|---|---|"]
        for one in result["contrasts"]:
            low, high = one["interval_over_items"]
            lines.append(f"| {_contrast(one)} | {_interval(one)} | [{low:+.4f}, {high:+.4f}] | {one['verdict']} |")
        made = result["made_by"]
        lines += ["", f"`{made['command']}`, commit {made['commit']}, {made['cpu']}, {made['cores']} cores, {made['time'][:10]}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    process.run(main)
