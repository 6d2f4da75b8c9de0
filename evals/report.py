"""The page of a run: `report.html` with everything inside, `results.json` and `results.csv` for programs, a short table for the terminal.

Leaves reading to `run_files.py`, the parts of the page to `sections.py`, curves to `plots.py`, the numbers behind pictures to
`pictures.py`, and looks to `report.html.j2`.
"""

import csv
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from core.workdir import write_json
from evals import run_files, sections
from evals.evaluation import direction
from evals.run_files import Run


def write(workdir) -> pathlib.Path:
    """Writes `report.html`, `results.json` and `results.csv` into a workdir from whatever it holds by now.

    Returns:
        The path of the page, which needs no other file and no network.

    Raises:
        FileNotFoundError: nothing of a run is there.
    """
    run = run_files.read_run(workdir)
    write_json(run.workdir / "results.json", results(run))
    (run.workdir / "results.csv").write_text(table({run.workdir.resolve().name: run}), encoding="utf-8")
    path = run.workdir / "report.html"
    path.write_text(page(run), encoding="utf-8")
    return path


def summary(workdir) -> str:
    """A short table of recalls, accuracies and primary metrics, at the last checkpoint and at the best one, controls, goals, and the path.

    Raises:
        FileNotFoundError: nothing of a run is there.
    """
    run = run_files.read_run(workdir)
    rows = [("evaluator", "metric", "last", "best@step", "beside")]
    for label, found in run.results.items():
        last, top = found[-1], run_files.best(found)
        primary = last["primary"]["name"]
        for name in [n for n in run_files.main_metrics(last) if n == primary or run_files.is_share(n)]:
            at_best = f"{run_files.readable(name, top['metrics'].get(name))} @ {top['step']}"
            beside = [f"{control} {run_files.readable(name, last['metrics'][f'{control}/{name}'])}" for control in run_files.controls(last)
                      if f"{control}/{name}" in last["metrics"]]  # fmt: skip
            rows.append(
                (label if name == primary else "", name, run_files.readable(name, last["metrics"][name]), at_best, ", ".join(beside))
            )
    rows = rows if any(row[-1] for row in rows[1:]) else [row[:-1] for row in rows]
    lines = aligned(rows, "<<>><")
    goals = [f"{label}: {goal}" for label in run.results if (goal := sections.goal(run, label))]
    body = lines if run.results else ["no evaluation yet"]
    return "\n".join([*body, *goals, f"report: {run.workdir / 'report.html'}"])


def aligned(rows: Sequence[Sequence[str]], sides: str) -> list[str]:
    """Rows as lines of a table with a rule below the first; `sides` aligns each column, `<` or `>`, and the last one the rest."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = sides.ljust(len(widths), sides[-1])
    lines = ["  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=False)) for row in rows]
    return [line.rstrip() for line in [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]]


def results(run: Run) -> dict[str, Any]:
    """The content of `results.json`: by evaluator the last and the best result and the primary metric's history; the last step."""
    evaluators = {}
    for label, found in run.results.items():
        name, top = found[-1]["primary"]["name"], run_files.best(found)
        evaluators[label] = {
            "evaluator": found[-1]["evaluator"],
            "primary": {"name": name, "better": "higher" if direction(name) >= 0 else "lower", "goal": run.goal(label)},
            "last": found[-1],
            "best": top,
            "history": [[result["step"], result["primary"]["value"]] for result in found],
        }
    return {"evaluators": evaluators, "train": run.lines[-1] if run.lines else {}, "environment": run.environment}


def table(runs: Mapping[str, Run]) -> str:
    """The content of `results.csv`: every metric of every result, a row each."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("run", "task", "evaluator", "step", "metric", "value", "primary"))
    for name, run in runs.items():
        for label, found in run.results.items():
            for result in found:
                for metric, value in result["metrics"].items():
                    primary = int(metric == result["primary"]["name"])
                    rows.writerow((name, label, result["evaluator"], result["step"], metric, value, primary))
    return text.getvalue()


def page(run: Run) -> str:
    """The report as HTML."""
    return render(
        "report.html.j2",
        name=run.workdir.resolve().name,
        lead=" · ".join(value for title, value in sections.facts(run) if title in ("Steps", sections.WALL_TIME, "Devices")),
        headlines=[sections.headline(run, label) for label in run.results],
        tables=[sections.table(label, found) for label, found in run.results.items()],
        progress=[panel for label in run.results for panel in sections.evaluation_panels(run, label)],
        training=sections.training_panels(run),
        galleries=[sections.gallery(label, arrays) for label, arrays in run.galleries.items()],
        facts=sections.facts(run),
        config=run.config,
        versions=run.environment.get("versions", {}),
    )


def render(template: str, **values: Any) -> str:
    """A page from one of the templates beside this file; a name that it lacks is an error."""
    loader = jinja2.FileSystemLoader(pathlib.Path(__file__).parent)
    options = {"autoescape": True, "undefined": jinja2.StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    environment = jinja2.Environment(loader=loader, **options)
    environment.filters["readable"] = lambda value, name: run_files.readable(name, value)
    return environment.get_template(template).render(**values)
