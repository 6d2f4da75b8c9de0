"""Many runs or models side by side: one page, `results.json`, `results.csv`, and a table for the terminal.

Reads workdirs and suites' folders alike. Scores are those of each run's last checkpoint. Leaves reading to `run_files.py`, intervals and
tests to `statistics.py`, whether two scores measure the same to `compare.py`, and looks to `side_by_side.html.j2`.
"""

import json
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core.workdir import read_json, write_json
from evals import compare, report, run_files, side_sections, statistics
from evals.evaluation import direction
from evals.run_files import Run

BOOTSTRAP = {"number": 2000, "seed": 0, "level": 0.95}  # fewer could not tell a difference from chance on forty tasks


def write(folders: Sequence, output) -> pathlib.Path:
    """Writes `report.html`, `results.json` and `results.csv` about all runs that the folders hold.

    Args:
        folders: workdirs, suites' folders of results, folders of a model in one.
        output: folder to write into; made if it is not there.

    Returns:
        The path of the page, which needs no other file and no network.

    Raises:
        FileNotFoundError: a folder that holds no run and no result.
    """
    runs, output = read(folders), pathlib.Path(output)
    found = collect(runs)
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "results.json", found)
    (output / "results.csv").write_text(report.table(runs), encoding="utf-8")
    path = output / "report.html"
    path.write_text(report.render("side_by_side.html.j2", **side_sections.parts(runs, found)), encoding="utf-8")
    return path


def summary(output) -> str:
    """A table of the primary metrics that `write` left in a folder, the places of the models, and the path of the page."""
    found = read_json(pathlib.Path(output) / "results.json")
    names = [name for name, model in found["models"].items() if not model["reference"]] or list(found["models"])
    rows = [("task", "metric", *names, "beside")]
    for label, task in found["tasks"].items():
        written = lambda value, metric=task["metric"]: run_files.readable(metric, value)
        scores = [written(task["scores"][name]["value"]) if name in task["scores"] else "" for name in names]
        rows.append((label, task["metric"], *scores, ", ".join(f"{name} {written(value)}" for name, value in task["beside"].items())))
    if side_sections.all_did_all(found):
        rows.append(("Borda points", "", *(f"{found['models'][name]['borda']:g}" for name in names), ""))
    notes = [note for task in found["tasks"].values() for note in task["notes"]]
    return "\n".join([*report.aligned(rows, "<<" + ">" * len(names) + "<"), *notes, f"report: {pathlib.Path(output) / 'report.html'}"])


def read(folders: Sequence) -> dict[str, Run]:
    """The runs of all folders by name: the shortest end of each path that tells them apart."""
    runs = list({run.workdir.resolve(): run for folder in folders for run in run_files.read_runs(folder)}.values())
    parts, length = [run.workdir.resolve().parts for run in runs], 1
    while len({part[-length:] for part in parts}) < len(runs):
        length += 1
    return {"/".join(part[-length:]): run for part, run in zip(parts, runs, strict=True)}


def collect(runs: Mapping[str, Run]) -> dict[str, Any]:
    """What `results.json` holds.

    `models.<name>` says where it came from and its place among the models (Borda points over the tasks); `tasks.<label>` holds `metric`,
    `better`, `count`, what stands `beside` the models, `scores` by model with their intervals, and `notes` where scores do not measure the
    same; `differences[]` holds tests of a `second` model against the `first` that did the same `task`, on the same items.
    """
    ranked = [name for name, run in runs.items() if not is_reference(run)] or list(runs)
    asked = _tasks(runs)
    tasks = {key: _task(some, runs, ranked) for key, some in asked.items()}
    differences = [test for key, some in asked.items() for test in _differences(key, some, runs, ranked)]
    for first, second in dict.fromkeys((test["first"], test["second"]) for test in differences):
        tests = [test for test in differences if (test["first"], test["second"]) == (first, second)]
        for test, p in zip(tests, statistics.holm(np.array([test["p"] for test in tests])).tolist(), strict=True):
            test["p_holm"] = p
    signed = [[_signed(task, name) for task in tasks.values()] for name in ranked]
    points = statistics.borda(np.array(signed)) if tasks else np.zeros(len(ranked))
    places = dict(zip(ranked, zip(points.tolist(), statistics.places(points), strict=True), strict=True))
    models = {name: _model(run, *places.get(name, (None, None))) for name, run in runs.items()}
    return {"bootstrap": BOOTSTRAP, "models": models, "tasks": tasks, "differences": differences}


def is_reference(run: Run) -> bool:
    """Whether this is a standing reference of a suite (a constant or a random model), no competitor."""
    return run_files.setting(run.config, "model", "weights") == "reference"


def _tasks(runs: Mapping[str, Run]) -> dict[str, dict[str, dict]]:
    """Last results by task and model; a label that stands for several sets or metrics becomes several tasks."""
    kinds: dict[str, dict[tuple, dict[str, dict]]] = {}
    for name, run in runs.items():
        for label, found in run.results.items():
            last = found[-1]
            data = last["settings"].get("data", {})
            kind = (last["evaluator"], last["primary"]["name"], data.get("name", ""), json.dumps(data, sort_keys=True))
            kinds.setdefault(label, {}).setdefault(kind, {})[name] = last
    out = {}
    for label, some in kinds.items():
        apart = [part for part in range(3) if len({kind[part] for kind in some}) > 1]
        for kind, results in some.items():
            key = f"{label} ({', '.join(kind[part] for part in apart)})" if apart else label
            out[key if key not in out else f"{key} of {', '.join(results)}"] = results
    return out


def _task(results: Mapping[str, dict], runs: Mapping[str, Run], ranked: Sequence[str]) -> dict[str, Any]:
    first = next(iter(results.values()))
    metric = first["primary"]["name"]
    beside = {control: first["metrics"][f"{control}/{metric}"] for control in run_files.controls(first)}
    beside |= {"chance": first["metrics"][f"{metric}_chance"]} if f"{metric}_chance" in first["metrics"] else {}
    beside |= {name: result["primary"]["value"] for name, result in results.items() if name not in ranked}
    notes = []
    for name, result in results.items():
        if lines := _asked_else(first, result):
            notes.append(f"{name} was asked something else than {next(iter(results))}: {'; '.join(lines[:3])}")
    return {
        "label": first["label"],
        "evaluator": first["evaluator"],
        "metric": metric,
        "better": "higher" if direction(metric) >= 0 else "lower",
        "count": first["count"],
        "beside": {name: value for name, value in beside.items() if value is not None},
        "scores": {
            name: {"value": result["primary"]["value"], "interval": _interval(result, runs[name]), "step": result["step"],
                   "metrics": result["metrics"]}
            for name, result in results.items() if name in ranked
        },
        "notes": notes,
    }  # fmt: skip


def _asked_else(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What two results were asked differently; by which view a model reads is a matter of the model."""
    return [line for line in compare.compare(one, other).task if not re.match(r"inputs\.\w+\.view:", line)]


def _interval(result: Mapping[str, Any], run: Run) -> list[float] | None:
    """Where the score lies when its items are drawn again; None where none were kept."""
    if result["label"] not in run.items or not result.get("items"):
        return None
    found = statistics.interval(run.items[result["label"]], result["items"]["statistic"], **BOOTSTRAP)
    return None if math.isnan(found[0]) else list(found)


def _differences(key: str, results: Mapping[str, dict], runs: Mapping[str, Run], ranked: Sequence[str]) -> list[dict[str, Any]]:
    """Each model less the first that has the task, where both were asked the same items."""
    names, out = [name for name in ranked if name in results], []
    for name in names[1:]:
        one, other = results[names[0]], results[name]
        items = [runs[model].items.get(result["label"]) for model, result in ((names[0], one), (name, other))]
        if any(some is None for some in items) or one.get("items") != other.get("items") or _asked_else(one, other):
            continue
        test = statistics.paired(*items, one["items"]["statistic"], **BOOTSTRAP)
        if math.isnan(test.difference):
            continue
        found = {
            "task": key,
            "first": names[0],
            "second": name,
            "difference": test.difference,
            "interval": [test.low, test.high],
            "p": test.p,
        }
        if one["items"]["statistic"] == "mean":
            sign = direction(one["primary"]["name"]) or 1
            gain = sign * (np.asarray(items[1], float) - np.asarray(items[0], float))
            found |= {"won": int((gain > 0).sum()), "equal": int((gain == 0).sum()), "lost": int((gain < 0).sum())}
        out.append(found)
    return out


def _signed(task: Mapping[str, Any], name: str) -> float:
    value = task["scores"].get(name, {"value": None})["value"]
    return math.nan if value is None else value if task["better"] == "higher" else -value


def _model(run: Run, borda: float | None, place: int | None) -> dict[str, Any]:
    last = [found[-1] for found in run.results.values()]
    settings = last[0]["settings"] if last else {}
    step = max((result["step"] for result in last), default=run.lines[-1]["step"] if run.lines else None)
    return {"folder": str(run.workdir), "step": step, "weights": settings.get("weights"), "fingerprint": settings.get("fingerprint"),
            "reference": is_reference(run), "borda": borda, "place": place}  # fmt: skip
