"""The table of a suite: means, intervals, tests and ranks over all models whose results a folder holds.

What `suite.json` holds is listed in `suite.py`.
"""

import math
import pathlib
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from core.config import plain
from core.workdir import read_json, write_json
from evals import statistics
from evals.encoders import REFERENCES
from evals.evaluation import direction

DESCRIBED = ("type", "cut", "source", "licence", "protocol")  # of a task's entry
TEST = "paired percentile bootstrap over items, two-sided; p_holm corrects for the number of tasks"


def collect(config, output: pathlib.Path) -> dict[str, Any]:
    """What `suite.json` holds, from all results in a folder.

    Raises:
        FileNotFoundError: no result is there.
    """
    found = {
        path.parent.name: {
            label: read_json(file) for label in config.tasks if (file := path.parent / f"{label}.json").exists()
        }
        for path in sorted(output.glob("*/model.json"))
    }  # fmt: skip
    if not any(found.values()):
        raise FileNotFoundError(f"{output} holds no result of {config.name}; evaluate a model on it first.")
    options = plain(config.bootstrap)
    items = {name: {label: _items(output / name / label) for label in some if some[label]["items"]} for name, some in found.items()}
    models = {name: _model(output / name, some, items[name], config, options) for name, some in found.items()}
    ranked = [name for name, model in models.items() if not model["reference"]]
    for name, points, place in zip(ranked, *_ranking(found, ranked, config), strict=True):
        models[name] |= {"borda": points, "place": place}
    return {
        "suite": config.name,
        "bootstrap": options,
        "references": list(config.references),
        "tasks": {label: _task(label, task, found) for label, task in config.tasks.items()},
        "models": models,
        "pairs": [_pair(a, b, found, items, options) for a, b in combinations(ranked, 2)],
    }


def _items(path: pathlib.Path) -> np.ndarray:
    with np.load(path.with_suffix(".items.npz"), allow_pickle=False) as stored:
        return stored["items"]


def _task(label: str, task, found: Mapping[str, Mapping]) -> dict[str, Any]:
    made = next((some[label] for some in found.values() if label in some), None)
    described = {key: plain(task[key]) for key in DESCRIBED if key in task} | {"evaluator": task.name}
    if made is None:
        return described | {"metric": None, "better": None, "count": 0, "items": None, "controls": {}}
    metric = made["primary"]["name"]
    beside = task.options.controls if "options" in task and "controls" in task.options else ()
    controls = {name: made["metrics"][f"{name}/{metric}"] for name in beside if f"{name}/{metric}" in made["metrics"]}
    return described | {
        "metric": metric,
        "better": "higher" if direction(metric) >= 0 else "lower",
        "count": made["count"],
        "items": made["items"],
        "controls": controls,
    }


def _model(folder: pathlib.Path, found: Mapping[str, Mapping], items: Mapping[str, np.ndarray], config, options) -> dict[str, Any]:
    made_by, missing = read_json(folder / "model.json"), read_json(folder / "missing.json")
    scores = {label: result["primary"]["value"] for label, result in found.items()}
    bounds = {label: statistics.interval(rows, found[label]["items"]["statistic"], **options) for label, rows in items.items()}
    known = {label: score for label, score in scores.items() if score is not None and direction(found[label]["primary"]["name"]) > 0}
    types: dict[str, list[float]] = {}
    for label, score in known.items():
        types.setdefault(config.tasks[label].type, []).append(score)
    means = {name: float(np.mean(some)) for name, some in sorted(types.items())}
    return {
        "fingerprint": made_by["fingerprint"],
        "weights": made_by["weights"],
        "reference": folder.name in REFERENCES,
        "scores": scores,
        "intervals": {label: list(pair) for label, pair in bounds.items() if not math.isnan(pair[0])},
        "missing": {label: why for label, why in missing.items() if label not in scores},
        "types": means,
        "mean": float(np.mean(list(known.values()))) if known else None,
        "mean_of_types": float(np.mean(list(means.values()))) if means else None,
        "of": len(known),
    }


def _ranking(found: Mapping[str, Mapping], names: Sequence[str], config) -> tuple[list[float], list[int]]:
    """Borda points and places of models; an undefined score counts like a missing one."""

    def signed(name: str, label: str) -> float:
        result = found[name].get(label)
        value = None if result is None else result["primary"]["value"]
        return math.nan if value is None else (direction(result["primary"]["name"]) or 1) * value

    points = statistics.borda(np.array([[signed(name, label) for label in config.tasks] for name in names]))
    return points.tolist(), statistics.places(points)


def _pair(first: str, second: str, found: Mapping, items: Mapping, options: Mapping) -> dict[str, Any]:
    tests = {}
    for label in items[first]:
        one, other = found[first][label], found[second].get(label)
        if other is not None and label in items[second] and _same_items(one, other):
            tests[label] = statistics.paired(items[first][label], items[second][label], one["items"]["statistic"], **options)
    tests = {label: test for label, test in tests.items() if not math.isnan(test.difference)}
    raised = statistics.holm(np.array([test.p for test in tests.values()])).tolist()
    made = {
        label: {"difference": test.difference, "interval": [test.low, test.high], "p": test.p, "p_holm": p}
        for (label, test), p in zip(tests.items(), raised, strict=True)
    }
    return {"first": first, "second": second, "test": TEST, "tasks": made}


def _same_items(one: Mapping, other: Mapping) -> bool:
    """Items go together only if both models were asked the same things in the same order."""
    asked = lambda result: {name: found["digest"] for name, found in result["settings"]["inputs"].items()}
    return one["items"] == other["items"] and one["primary"]["name"] == other["primary"]["name"] and asked(one) == asked(other)


def write(config, output: pathlib.Path) -> str:
    """Writes `suite.json` and `table.md` from all results in a folder; the table."""
    found = collect(config, output)
    write_json(output / "suite.json", found)
    text = table(found)
    (output / "table.md").write_text(text, encoding="utf-8")
    return text


def table(found: Mapping[str, Any]) -> str:
    """The table of a suite in Markdown: a row a task, a column a model, controls and references at the right."""
    ranked = sorted((name for name, model in found["models"].items() if not model["reference"]), key=lambda n: found["models"][n]["place"])
    standing = [name for name, model in found["models"].items() if model["reference"]]
    controls = sorted({name for task in found["tasks"].values() for name in task["controls"]})
    rows = [["task", "type", "metric", "n", *ranked, *controls, *standing]]
    known = [
        label for label, task in found["tasks"].items() if task["count"] or any(label in m["missing"] for m in found["models"].values())
    ]
    for label, task in ((label, found["tasks"][label]) for label in known):
        cells = [_cell(found["models"][name], label) for name in ranked]
        beside = [_number(task["controls"].get(name)) for name in controls]
        beside += [_number(found["models"][name]["scores"].get(label)) for name in standing]
        rows.append([label, task["type"], task["metric"] or "", str(task["count"]), *cells, *beside])
    empty = [""] * (len(controls) + len(standing))
    for kind in sorted({task["type"] for task in found["tasks"].values()}):
        rows.append([f"mean of {kind}", "", "", "", *(_number(found["models"][name]["types"].get(kind)) for name in ranked), *empty])
    for title, key in (("mean of tasks", "mean"), ("mean of types", "mean_of_types")):
        rows.append([title, "", "", "", *(f"{_number(found['models'][n][key])} ({found['models'][n]['of']})" for n in ranked), *empty])
    ranks = [f"{found['models'][name]['place']} ({found['models'][name]['borda']:g} points)" for name in ranked]
    rows.append(["Borda rank", "", "", "", *ranks, *empty])
    rows.insert(1, ["---"] * len(rows[0]))
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, "", *_notes(found)]) + "\n"


def _notes(found: Mapping[str, Any]) -> list[str]:
    options = found["bootstrap"]
    how = f"{options['number']} samples, seed {options['seed']}"
    notes = [
        f"In brackets: {100 * options['level']:g}% percentile bootstrap over the items, {how}. "
        "A mean says in brackets how many tasks it is over. –: undefined, or not evaluated."
    ]
    notes += [f"Models against each other: {TEST}."] if found["pairs"] else []
    for pair in found["pairs"]:
        sure = [test["difference"] for test in pair["tasks"].values() if test["p_holm"] < 1 - options["level"]]
        higher, lower, every = sum(d > 0 for d in sure), sum(d < 0 for d in sure), len(pair["tasks"])
        tasks = f"higher on {higher}, lower on {lower}, undecided on {every - len(sure)} of {every} tasks"
        notes.append(f"- {pair['second']} against {pair['first']}: {tasks}.")
    return notes


def _cell(model: Mapping[str, Any], label: str) -> str:
    if label not in model["scores"]:
        return "missing" if label in model["missing"] else "–"
    bounds = model["intervals"].get(label)
    return _number(model["scores"][label]) + (f" [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else "")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
