"""The parts of a page about many runs as values for its template: table, bars, differences, curves, geometry, what they retrieve."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evals import pictures, plots, run_files, sections
from evals.run_files import Run

SHOWN = 12  # queries of a task that all runs answered
WORST = 6  # queries of a task that went worst for a run
SURE = 0.05  # corrected p-value below which a difference is named


def parts(runs: Mapping[str, Run], found: Mapping[str, Any]) -> dict[str, Any]:
    """All that the template reads, from the runs and from what `side_by_side.collect` made of them."""
    ranked = [name for name, model in found["models"].items() if model["place"] is not None]
    runs = {name: runs[name] for name in [*ranked, *(name for name in runs if name not in ranked)]}  # competitors take the first colours
    number = {name: i % len(plots.SERIES) + 1 for i, name in enumerate(runs)}
    return {
        "models": [{"name": name, "number": number[name], **model} for name, model in found["models"].items()],
        "ranked": [{"name": name, "number": number[name]} for name in ranked],
        "placed": all_did_all(found),
        "bootstrap": found["bootstrap"],
        "beside": list(dict.fromkeys(name for task in found["tasks"].values() for name in task["beside"])),
        "table": [_row(key, task, ranked) for key, task in found["tasks"].items()],
        "bars": [_bars(key, task, number) for key, task in found["tasks"].items()],
        "differences": [_differences(*pair, number, found) for pair in _pairs(found)],
        "progress": _progress(runs, found),
        "training": _training(runs),
        "geometry": _geometry(runs, number),
        "queries": [shown for key, task in found["tasks"].items() if (shown := _queries(key, task, runs, number))],
        "images": [shown for key, task in found["tasks"].items() if (shown := _images(key, task, runs, number))],
        "metrics": [_metrics(key, task) for key, task in found["tasks"].items()],
        "notes": [(key, note) for key, task in found["tasks"].items() for note in task["notes"]],
        "settings": _settings(runs),
    }


def _best(task: Mapping[str, Any]) -> float | None:
    """The value that no model surpasses; None where fewer than two have one."""
    known = [score["value"] for score in task["scores"].values() if score["value"] is not None]
    return (max if task["better"] == "higher" else min)(known) if len(known) > 1 else None


def _row(key: str, task: Mapping[str, Any], ranked: Sequence[str]) -> dict[str, Any]:
    best = _best(task)
    cells = []
    for name in ranked:
        score = task["scores"].get(name)
        value = score["value"] if score else None
        cells.append({"text": run_files.readable(task["metric"], value) if score else "", "best": value is not None and value == best,
                      "interval": _written(task["metric"], score["interval"]) if score else ""})  # fmt: skip
    return {**task, "key": key, "cells": cells}


def _written(metric: str, interval: Sequence[float] | None) -> str:
    return "" if interval is None else " – ".join(run_files.readable(metric, value).removesuffix("%") for value in interval)


def _bars(key: str, task: Mapping[str, Any], number: Mapping[str, int]) -> dict[str, Any]:
    """Bars of a task's models from 0 to 1, or to the longest where a metric has no such bounds, in per cent of their track."""
    values = [value for score in task["scores"].values() for value in (score["value"], *(score["interval"] or ())) if value is not None]
    top = max([1.0] if task["better"] == "higher" and max(values, default=0) <= 1 else [*values, *task["beside"].values(), 1e-9])
    width = lambda value: round(100 * min(max(value or 0, 0), top) / top, 2)
    rows = []
    for name, score in task["scores"].items():
        low, high = map(width, score["interval"]) if score["interval"] else (None, None)
        texts = {"text": run_files.readable(task["metric"], score["value"]), "interval": _written(task["metric"], score["interval"])}
        rows.append({"name": name, "number": number[name], "width": width(score["value"]), "low": low, "high": high, **texts})
    beside = [{"name": n, "text": run_files.readable(task["metric"], value), "width": width(value)} for n, value in task["beside"].items()]
    return {**task, "key": key, "rows": rows, "beside": beside}


def all_did_all(found: Mapping[str, Any]) -> bool:
    """Whether there are several models and every one has a score for every task: places among them mean little otherwise."""
    names = [name for name, model in found["models"].items() if model["place"] is not None]
    return len(names) > 1 and bool(found["tasks"]) and all(name in task["scores"] for task in found["tasks"].values() for name in names)


def _pairs(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((test["first"], test["second"]) for test in found["differences"]))


def _differences(first: str, second: str, number: Mapping[str, int], found: Mapping[str, Any]) -> dict[str, Any]:
    """A model against another, task by task, on one scale."""
    tests = [test for test in found["differences"] if (test["first"], test["second"]) == (first, second)]
    reach = max(abs(value) for test in tests for value in (*test["interval"], test["difference"])) * 1.05 or 1.0
    at = lambda value: round(50 + 50 * value / reach, 2)
    rows = []
    for test in tests:
        task, difference = found["tasks"][test["task"]], test["difference"]
        good = difference > 0 if task["better"] == "higher" else difference < 0
        text = f"{100 * difference:+.1f} pts" if run_files.is_share(task["metric"]) else f"{difference:+.3f}"
        ends = {"low": at(test["interval"][0]), "high": at(test["interval"][1])}
        verdict = "undecided" if test["p_holm"] >= SURE else "better" if good else "worse"
        counts = {name: test.get(name) for name in ("won", "lost", "equal")}
        words = {"key": test["task"], "metric": task["metric"], "text": text.replace("-", "−"), "verdict": verdict}
        rows.append({**words, "at": at(difference), "p": test["p_holm"], **ends, **counts})
    return {"first": first, "second": second, "number": number[second], "rows": rows, "reach": f"{reach:.2g}"}


def _panels(titles: Mapping[str, bool], series, runs: Mapping[str, Run]) -> list[dict[str, Any]]:
    """A panel for each title with a line for each run that has two points or more; colours follow the order of the runs."""
    out = []
    for title, share in titles.items():
        lines = {name: series(title, name) for name in runs}
        if any(len(steps) > 1 for steps, _ in lines.values()):
            out.append(sections.panel(title, lines, share=share))
    return out


def _progress(runs: Mapping[str, Run], found: Mapping[str, Any]) -> list[dict[str, Any]]:
    titles = {f"{key}: {task['metric']}": run_files.is_share(task["metric"]) for key, task in found["tasks"].items()}
    tasks = dict(zip(titles, found["tasks"].values(), strict=True))

    def series(title, name):
        task = tasks[title]
        return sections.history(runs[name].results[task["label"]], task["metric"]) if name in task["scores"] else ([], [])

    return _panels(titles, series, runs)


def _training(runs: Mapping[str, Run]) -> list[dict[str, Any]]:
    wanted = {title: (next(iter(metrics)), share) for title, metrics, share in sections.TRAINING if len(metrics) == 1}
    return _panels({title: share for title, (_, share) in wanted.items()}, lambda title, name: runs[name].series(wanted[title][0]), runs)


def _geometry(runs: Mapping[str, Run], number: Mapping[str, int]) -> list[dict[str, Any]]:
    """Alignment against uniformity, and every other diagnostic over checkpoints, for each label that measures them."""
    labels = dict.fromkeys(
        label for run in runs.values() for label, found in run.results.items() if "geometry/alignment" in found[-1]["metrics"]
    )
    out = []
    for label in labels:
        found = {name: run.results.get(label, []) for name, run in runs.items()}
        moved = {name: _alignment_and_uniformity(some) for name, some in found.items()}
        if any(across for across, _ in moved.values()):
            legend = [{"name": name, "last": f"{up[-1]:.2f}", "number": number[name]} for name, (_, up) in moved.items() if up]
            svg = plots.paths(moved, "uniformity (less: spread out)", "alignment (less: pairs near)")
            out.append({"title": f"{label}: alignment × uniformity", "legend": legend, "svg": svg, "goal": False})
        names = [name for some in found.values() if some for name in some[-1]["metrics"] if name.startswith("geometry/")]
        titles = {f"{label}: {name.removeprefix('geometry/')}": False for name in dict.fromkeys(names)}
        out += _panels(titles, lambda title, name: sections.history(found[name], f"geometry/{title.split(': ', 1)[1]}"), runs)  # noqa: B023
    return out


def _alignment_and_uniformity(results: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    across, up = [], []
    for result in results:
        metrics = result["metrics"]
        sides = [value for name, value in metrics.items() if name.startswith("geometry/uniformity") and value is not None]
        if sides and metrics.get("geometry/alignment") is not None:
            across.append(float(np.mean(sides)))
            up.append(metrics["geometry/alignment"])
    return across, up


def _queries(key: str, task: Mapping[str, Any], runs: Mapping[str, Run], number: Mapping[str, int]) -> dict[str, Any] | None:
    """The drawn queries that all runs answered, those first on which they differ most, and each run's own worst ones."""
    lists = {name: pictures.ranked_lists(arrays) for name in task["scores"]
             if "ranked_queries" in (arrays := runs[name].galleries.get(task["label"], {}))}  # fmt: skip
    if not lists:
        return None
    drawn = {name: {card["query"]: card for card in cards.get("drawn", [])} for name, cards in lists.items()}
    common = [query for query in next(iter(drawn.values())) if all(query in cards for cards in drawn.values())]
    rows = [{"query": query, "cells": [{"name": name, "number": number[name], **drawn[name][query]} for name in lists]} for query in common]
    worst = [{"name": name, "number": number[name], "cards": cards.get("worst", [])[:WORST]} for name, cards in lists.items()]
    return {"key": key, "rows": sorted(rows, key=lambda row: -_spread([cell["place"] for cell in row["cells"]]))[:SHOWN], "worst": worst}


def _images(key: str, task: Mapping[str, Any], runs: Mapping[str, Run], number: Mapping[str, int]) -> dict[str, Any] | None:
    """As `_queries`, for images; the worst are those of the shown ones that stand last."""
    found = {name: arrays for name in task["scores"] if "query_images" in (arrays := runs[name].galleries.get(task["label"], {}))}
    if not found:
        return None
    cards = {name: {(card["name"], card["image"]): card for card in pictures.grid(arrays)} for name, arrays in found.items()}
    common = [shown for shown in next(iter(cards.values())) if all(shown in some for some in cards.values())]
    rows = [{"name": shown[0], "image": shown[1], "group": next(iter(cards.values()))[shown]["group"],
             "cells": [{"name": name, "number": number[name], "place": some[shown]["rank"], "top": some[shown]["top"][:3]}
                       for name, some in cards.items()]} for shown in common]  # fmt: skip
    rows.sort(key=lambda row: (-_spread([cell["place"] for cell in row["cells"]]), -min(cell["place"] for cell in row["cells"])))
    return {"key": key, "rows": rows[:SHOWN], "ink": any(pictures.is_ink(arrays["query_images"]) for arrays in found.values())}


def _spread(places: Sequence[int]) -> float:
    """How much models differ on a query: from the first place to the second is as far as from the tenth to the twentieth."""
    return max(places) / min(places)


def _metrics(key: str, task: Mapping[str, Any]) -> dict[str, Any]:
    names = list(dict.fromkeys(name for score in task["scores"].values() for name in score["metrics"]))
    written = lambda name, metrics: run_files.readable(name, metrics[name]) if name in metrics else ""
    rows = [{"name": name, "cells": [written(name, score["metrics"]) for score in task["scores"].values()]} for name in names]
    return {"key": key, "metric": task["metric"], "models": list(task["scores"]), "rows": rows}


def _settings(runs: Mapping[str, Run]) -> dict[str, Any]:
    """Entries of configs and environments in which the runs differ; what a run lacks is None."""
    flat = {
        name: _flat(run.config) | _flat({key: run.environment.get(key) for key in ("commit", "cpu", "devices")})
        for name, run in runs.items()
    }
    keys = list(dict.fromkeys(key for some in flat.values() for key in some))
    rows = [{"key": key, "cells": [some.get(key) for some in flat.values()]} for key in keys]
    rows = [row for row in rows if len(set(row["cells"])) > 1]
    return {"names": list(runs), "rows": rows}


def _flat(tree: Any, path: str = "") -> dict[str, str]:
    if isinstance(tree, Mapping) and tree:
        return {key: value for name, inner in tree.items() for key, value in _flat(inner, f"{path}.{name}" if path else name).items()}
    return {path: tree if isinstance(tree, str) else json.dumps(tree)} if path and tree is not None else {}
