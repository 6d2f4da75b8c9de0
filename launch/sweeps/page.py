"""The page of a sweep: its trials in a table, their values side by side, and what mattered; and the same for programs."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup, escape

from core.workdir import write_json
from launch.sweeps import space, trial

NOTE, REFUSED = "note", "refused"  # what the study keeps of a trial beside Optuna's own
WIDTH, HEIGHT, TOP, SIDE = 1080, 340, 44, 70  # of the drawing, and of its margins


class Row(NamedTuple):
    """A trial as the page shows it."""

    number: int
    values: Mapping[str, Any]
    state: str  # done, pruned, failed, running, waiting
    value: float | None  # the objective; of a pruned trial its last report
    note: str
    seconds: float | None


def write(plan: trial.Plan, study) -> str:
    """Writes `sweep.html` and `results.json` into the folder of a sweep, from what its trials have given by now.

    Returns:
        The trials as text, and the path of the page.
    """
    found = rows(plan, study)
    kept = [row for row in found if row.state == trial.DONE]
    facts = {"objective": dict(plan.sweep.objective), "trials": [row._asdict() for row in found], "importance": importance(study)}
    write_json(plan.folder / "results.json", facts | {"best": kept[0]._asdict() if kept else None})
    path = plan.folder / "sweep.html"
    path.write_text(render(plan, found, facts["importance"]), encoding="utf-8")
    return f"{table(found)}\n{path}"


def finished(study) -> bool:
    """Whether any trial came to its end with a value."""
    from optuna.trial import TrialState

    return any(one.state is TrialState.COMPLETE for one in study.get_trials(deepcopy=False))


def rows(plan: trial.Plan, study) -> list[Row]:
    """All trials: those that are done from best to worst, then pruned, failed, running and waiting ones."""
    from optuna.trial import TrialState

    names = {TrialState.COMPLETE: trial.DONE, TrialState.PRUNED: trial.PRUNED, TrialState.FAIL: trial.FAILED,
             TrialState.RUNNING: "running", TrialState.WAITING: "waiting"}  # fmt: skip
    found, order = [], list(names.values())
    for one in study.get_trials(deepcopy=False):
        if REFUSED in one.user_attrs:
            continue
        values = one.params or one.system_attrs.get("fixed_params", {})
        last = one.intermediate_values[max(one.intermediate_values)] if one.intermediate_values else None
        ages = [trial.age(folder) for folder in trial.folders(plan, one.number).values()]
        found.append(
            Row(
                one.number, {label: values[label] for label in plan.sweep.space if label in values}, names[one.state],
                one.value if one.state is TrialState.COMPLETE else last, one.user_attrs.get(NOTE, ""),
                sum(ages) if ages and None not in ages else None,
            )
        )  # fmt: skip
    sign = -1 if space.maximize(plan.sweep) else 1
    return sorted(found, key=lambda row: (order.index(row.state), math.inf if row.value is None else sign * row.value, row.number))


def importance(study) -> dict[str, float]:
    """Share of the objective's variance that each value explains (fANOVA); empty where too few trials, or equal ones, are done."""
    import optuna

    done = [one for one in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))]
    varied = {label for label in study.best_params if len({one.params[label] for one in done}) > 1} if done else set()
    if len(done) < 4 or not varied or len({one.value for one in done}) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=sorted(varied))
    return {label: float(share) for label, share in found.items()}


def readable(values: Mapping[str, Any]) -> str:
    """`rate = 0.001, loss = sigmoid`."""
    return ", ".join(f"{label} = {_text(value)}" for label, value in values.items())


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(found: Sequence[Row]) -> str:
    """The trials for a terminal."""
    labels = list(found[0].values) if found else []
    lines = [["trial", *labels, "objective", "", "time"]]
    for row in found:
        value = "" if row.value is None else f"{row.value:.4f}"
        lines.append(
            [str(row.number), *(_text(row.values.get(x, "")) for x in labels), value, row.note or row.state, _duration(row.seconds)]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


class Axis(NamedTuple):
    """One upright of the drawing."""

    title: str
    ticks: Sequence[tuple[str, float]]  # text and height, 0 at the bottom to 1
    place: Any  # value -> height


def axis(label: str, entry) -> Axis:
    """The upright of a value: listed values evenly, ranges in their own scale."""
    if "values" in entry:
        listed = list(entry["values"])
        height = {value: (i + 0.5) / len(listed) for i, value in enumerate(listed)}
        return Axis(label, [(_text(value), height[value]) for value in listed], height.__getitem__)
    return numeric(label, entry.low, entry.high, logarithmic="log" in entry and entry.log)


def numeric(title: str, low: float, high: float, *, logarithmic: bool = False) -> Axis:
    """An upright from `low` to `high` with five ticks."""
    scale = math.log if logarithmic else float
    back = math.exp if logarithmic else float
    span = scale(high) - scale(low)
    place = lambda value: (scale(value) - scale(low)) / span if span else 0.5
    values = [back(scale(low) + span * i / 4) for i in range(5)] if span else [low]
    # An even scale has as many decimals everywhere; a logarithmic one as many digits.
    shape = ".3g" if logarithmic or not span else f".{max(0, 2 - math.floor(math.log10(span)))}f"
    return Axis(title, [(f"{value:{shape}}", place(value)) for value in values], place)


def parallel(plan: trial.Plan, found: Sequence[Row]) -> Markup:
    """A line for each trial with a value through its values and the objective; the best one stands out, pruned ones are broken."""
    shown = [row for row in found if row.value is not None]
    if not shown:
        return Markup("")
    objective = [row.value for row in shown]
    axes = [axis(label, entry) for label, entry in plan.sweep.space.items()]
    axes.append(numeric(plan.sweep.objective.metric, min(objective), max(objective)))
    step = (WIDTH - 2 * SIDE) / (len(axes) - 1)
    x = lambda i: SIDE + i * step
    y = lambda height: HEIGHT - 16 - height * (HEIGHT - TOP - 24)
    texts, parts = (
        [],
        [f'<svg class="chart parallel" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="values and objective of each trial">'],
    )
    for i, one in enumerate(axes):
        anchor = "end" if i == len(axes) - 1 else "start" if i == 0 else "middle"
        parts.append(f'<line class="upright" x1="{x(i):.1f}" x2="{x(i):.1f}" y1="{y(0):.1f}" y2="{y(1):.1f}"/>')
        shift = SIDE - 4 if anchor == "end" else 4 - SIDE if anchor == "start" else 0
        texts.append(f'<text class="title" x="{x(i) + shift:.1f}" y="18" text-anchor="{anchor}">{escape(one.title)}</text>')
        side, where = ("start", 9) if i == len(axes) - 1 else ("end", -9)
        for text, height in one.ticks:
            texts.append(f'<text x="{x(i) + where:.1f}" y="{y(height) + 4:.1f}" text-anchor="{side}">{escape(text)}</text>')
    for rank, row in reversed(list(enumerate(shown))):
        heights = [one.place(row.values[one.title]) for one in axes[:-1]] + [axes[-1].place(row.value)]
        points = " ".join(f"{x(i):.1f},{y(height):.1f}" for i, height in enumerate(heights))
        kind = "best" if rank == 0 and row.state == trial.DONE else row.state
        strength = 1.0 if kind == "best" else 0.25 + 0.6 * (1 - rank / len(shown))
        title = f"trial {row.number}: {readable(row.values)}; {row.value:.4f}"
        parts.append(
            f'<polyline class="{kind}" points="{points}" style="opacity: {strength:.2f}"><title>{escape(title)}</title></polyline>'
        )
    return Markup("".join(parts + texts) + "</svg>")


def render(plan: trial.Plan, found: Sequence[Row], shares: Mapping[str, float]) -> str:
    """The page as HTML; it needs no other file and no network."""
    root = pathlib.Path(__file__).resolve().parents[2]
    loader = jinja2.FileSystemLoader([pathlib.Path(__file__).parent, root / "evals"])
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"text": _text, "duration": _duration}
    done = [row for row in found if row.state == trial.DONE]
    arguments = space.words(plan.sweep, plan.config, plan.fixed, done[0].values, space.seeds(plan.sweep)[0]) if done else []
    return environment.get_template("page.html.j2").render(
        name=plan.folder.resolve().name, objective=plan.sweep.objective, higher=space.maximize(plan.sweep), best=done[0] if done else None,
        command=["python", "-m", "launch.train", *arguments, "--workdir=…"], rows=found, labels=list(plan.sweep.space), done=len(done),
        keys={label: entry.key for label, entry in plan.sweep.space.items()}, chart=parallel(plan, found), shares=shares,
        search=plan.sweep.search.name, constraints=space.constraints(plan.sweep), seeds=space.seeds(plan.sweep),
        counts={state: sum(row.state == state for row in found) for state in dict.fromkeys(row.state for row in found)},
    )  # fmt: skip
