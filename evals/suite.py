"""Suites: lists of tasks that any models go through, and one table of how they did.

A suite is a config (`configs/suites/*.py`) with `name`, `bootstrap` (options of `statistics.interval`), `references` (of
`results.REFERENCES`: models whose scores show what ties and chance are worth) and `tasks.<label>`, each with

    type      one of TYPES, whose mean the table gives
    name, data, options   as in `config.evals.<label>`: the evaluator, what it reads, its options
    cut       optional, options of `cut.Cut`: a part of the data
    source, licence, protocol   whose data it is, what one may do with it, and which published procedure the score follows

The folder of results holds `<model>/model.json` (what its vectors depend on), `<model>/<task>.json` with `.npz` and `.items.npz` beside
it, each as the eval job of a run writes it, and what is made of them all, `table.md` and `suite.json`:

    suite, bootstrap, references
    tasks.<label>     type, metric, better ("higher" or "lower"), count, items, source, licence, protocol, cut,
                      controls {name: score} (of models that are no models: BM25, bag of words)
    models.<name>     fingerprint, weights, reference (true for the standing ones),
                      scores {label: number, or null where it is undefined}, intervals {label: [low, high]}, missing {label: why},
                      types {type: mean}, mean (over tasks), mean_of_types, of (how many tasks the means are over),
                      borda (points), place; the last two only for those that are no references
    pairs[]           first, second, test, tasks {label: {difference (second less first), interval [low, high], p, p_holm}}

Models are compared with each other over all that the folder holds, whenever they were evaluated.
"""

import logging
import math
import pathlib
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from core.config import ConfigError, check_section, choose, differences, options_of, plain
from core.workdir import read_json, write_json
from evals import EVALUATORS, results, statistics
from evals.evaluation import direction

log = logging.getLogger(__name__)

TYPES = (
    "bitext", "candidates", "classification", "clustering", "compositional", "image_text_retrieval", "long_text", "noise",
    "pair_classification", "reranking", "retrieval", "sts", "zeroshot",
)  # fmt: skip
TASK = ("type", "name", "data", "options", "cut", "source", "licence", "protocol")
IDENTITY = ("fingerprint", "weights", "step", "views", "prompts")  # of a model; on which machine it runs is none of it
TEST = "paired percentile bootstrap over items, two-sided; p_holm corrects for the number of tasks"


def check(config) -> None:
    """Refuses a suite that could not run; builds nothing.

    Raises:
        ConfigError: an unknown type, evaluator, set, key or option, or a task without a source, licence or protocol.
    """
    check_section(config, ("name", "bootstrap", "references", "tasks", "mteb"), "suite", optional=("mteb",))
    check_section(config.bootstrap, ("number", "seed", "level"), "suite.bootstrap")
    for name in config.references:
        choose(results.REFERENCES, name, "suite.references")
    for label, task in config.tasks.items():
        key = f"suite.tasks.{label}"
        check_section(task, TASK, key, optional=("cut",))
        results.check(task, key)
        if task.type not in TYPES:
            raise ConfigError(f"{key}.type is {task.type!r}, which is not among: {', '.join(TYPES)}.")
        for name in ("source", "licence", "protocol"):
            if not task[name]:
                raise ConfigError(f"{key}.{name} is empty; say whose data it is, what one may do with it, and how it is scored.")


def run(config, name: str, encode: results.Encoders, output: pathlib.Path, only: Sequence[str] = ()) -> list[pathlib.Path]:
    """Evaluates a model on what is missing of a suite; started again after a kill, it goes on with the next task.

    Args:
        config: of the suite.
        name: of the model, a folder in `output`.
        encode: the model.
        output: the suite's folder of results.
        only: labels of tasks; empty means all.

    Returns:
        The result files written.

    Raises:
        ConfigError: the folder holds results of another model of that name, or an unknown label.
    """
    for label in only:
        choose(config.tasks, label, "--evals")
    claim(output / name, encode.made_by)
    written, missing = [], {}
    for label, task in config.tasks.items():
        path = output / name / f"{label}.json"
        if (only and label not in only) or _is_done(path, task):
            continue
        try:
            evaluation, found, seconds = results.measure(encode, task, f"suite.tasks.{label}")
        except (results.NoView, results.NoData) as error:
            log.warning("%s is left out for %s: %s", label, name, error)
            missing[label] = str(error)
            continue
        results.write(path, label, encode.made_by.get("step", 0), task, evaluation, found, seconds)
        written.append(path)
        log.info("%s %s: %s = %.4f (%.1f s)", name, label, evaluation.primary, evaluation.metrics[evaluation.primary], seconds)
    path = output / name / "missing.json"
    write_json(path, read_json(path) | missing)
    return written


def claim(folder: pathlib.Path, made_by: Mapping[str, Any]) -> None:
    """Begins a model's folder, or takes up the one it began before: another model's results would make one row of two models.

    Args:
        folder: of the model.
        made_by: what its vectors depend on.

    Raises:
        ConfigError: the folder is another model's.
    """
    path = folder / "model.json"
    own = lambda made_by: {key: made_by[key] for key in IDENTITY if key in made_by}
    if path.exists() and (found := differences(own(read_json(path)), own(made_by), folder.name)):
        raise ConfigError(
            f"{folder} holds results of another model: {'; '.join(found[:4])}. Give this one a name, --model=NAME=FOLDER, "
            "or choose another --output."
        )
    write_json(path, made_by)
    if not (folder / "missing.json").exists():
        write_json(folder / "missing.json", {})


def _is_done(path: pathlib.Path, task) -> bool:
    """Whether a result is there that the same entry made; one of a changed entry is made again."""
    if not path.exists():
        return False
    found, asked = read_json(path), _asked(task)
    changed = [key for key, value in asked.items() if found["settings"].get(key) != value]
    if changed or found["evaluator"] != task.name:
        log.info("%s was made with other settings (%s) and is made again", path, ", ".join(changed) or "evaluator")
        return False
    return True


def _asked(task) -> dict[str, Any]:
    found = {"data": plain(task.data), "options": plain(options_of(EVALUATORS[task.name]) | plain(task.options))}
    return found | {"cut": plain(task.cut) if "cut" in task else None}


def references(config, output: pathlib.Path, only: Sequence[str] = ()) -> None:
    """Evaluates the standing references, which are models like others but stand outside the ranking."""
    for name in config.references:
        run(config, name, results.REFERENCES[name](), output, only)


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
    described = {key: plain(task[key]) for key in TASK if key in task and key not in ("data", "options")}
    described["evaluator"] = described.pop("name")
    if made is None:
        return described | {"metric": None, "better": None, "count": 0, "items": None, "controls": {}}
    metric = made["primary"]["name"]
    beside = task.options.controls if "options" in task and "controls" in task.options else ()
    controls = {name: made["metrics"][f"{name}/{metric}"] for name in beside}
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
        "reference": folder.name in results.REFERENCES,
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


def named(models: Sequence[str]) -> dict[str, pathlib.Path]:
    """Folders of models by name: `NAME=FOLDER`, or `FOLDER`, whose own name it then is.

    Raises:
        ConfigError: two of one name, or a name that is no folder's or a reference's.
    """
    found: dict[str, pathlib.Path] = {}
    for given in models:
        name, equals, path = given.partition("=")
        path = pathlib.Path(path if equals else given)
        name = name if equals else path.resolve().name
        if name in found or name in results.REFERENCES or not name or "/" in name:
            taken = ", ".join([*found, *results.REFERENCES])
            raise ConfigError(
                f"{name!r} does not name {path} in the table; give it one without slashes, NAME={path}, and none of: {taken}."
            )
        found[name] = path
    return found
