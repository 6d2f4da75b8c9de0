"""The parts of a report as values for its template: headlines, tables, curves, pictures and facts of a run."""

import collections
from typing import Any

from evals import pictures, plots, run_files
from evals.evaluation import direction
from evals.run_files import Run

# Panels of the training section: title, the metrics drawn with their names in the legend, and whether they are fractions.
TRAINING = (
    ("Loss, nats", {"train/loss": "loss"}, False),
    ("In-batch recall@1", {"train/recall@1_in_batch": "recall"}, True),
    ("Logits", {"train/positive_logit": "positive", "train/negative_logit": "negative"}, False),
    ("Logit scale", {"train/logit_scale": "1 / temperature"}, False),
    ("Effective rank", {
        "train/effective_rank_query": "query", "train/effective_rank_passage": "passage",
    }, False),
    ("Learning rate", {"opt/learning_rate": "rate"}, False),
    ("Gradient norm", {"opt/grad_norm": "norm"}, False),
    ("Examples per second", {"perf/examples_per_second": "examples/s"}, False),
    ("Share of time waiting for input", {"perf/input_wait_share": "share"}, True),
    ("Model FLOP utilisation", {"perf/mfu": "MFU"}, True),
)  # fmt: skip
WALL_TIME = "Wall time, first to last logged step"
SENTENCES = {
    ("image_text_retrieval", "img2txt/recall@1"): "of {images} images rank a right text first among {texts}",
    ("zeroshot", "accuracy@1"): "of {count} images get their class from prompts alone, out of {classes} classes",
    ("ranking", "mrr@10"): "mean of 1 / place of the first right one, 0 below place 10: {queries} queries against {corpus} candidates",
    ("ranking", "ndcg@10"): "of the best possible gain among ten: {queries} queries against {corpus} candidates",
    ("sts", "cosine_spearman"): "correlation of ranks with people's scores over {pairs} pairs",
    ("pair_classification", "max_ap"): "average precision over {pairs} pairs, {positives} of which belong together",
    ("bitext", "f1"): "weighted F1 of {sources} sentences looking for their translation among {targets}",
    ("clustering", "v_measure"): "v-measure of k-means against {classes} classes of {values} texts",
    ("held_out_loss", "loss"): "nats, the training objective on {count} held-out pairs in batches of {batch}",
}


def headline(run: Run, label: str) -> dict[str, Any]:
    """The primary metric of an evaluator in words: value, what it means, goal and chance."""
    last, top = run.results[label][-1], run_files.best(run.results[label])
    name, value = last["primary"]["name"], last["primary"]["value"]
    counts = {key.removeprefix("count/"): f"{int(number):,}" for key, number in last["metrics"].items() if key.startswith("count/")}
    words = collections.defaultdict(lambda: "all", counts, metric=name, count=f"{last['count']:,}")
    sentence = SENTENCES.get((last["evaluator"], name), "{metric} over {count} examples").format_map(words)
    return {
        "label": label,
        "metric": name,
        "step": last["step"],
        "value": run_files.readable(name, value),
        "share": value if run_files.is_share(name) or last["evaluator"] == "ranking" else None,
        "sentence": sentence,
        "goal": goal(run, label),
        "goal_at": run.goal(label),
        "chance": last["metrics"].get(f"{name}_chance"),
        "controls": {control: last["metrics"][f"{control}/{name}"] for control in run_files.controls(last)},
        "best": "" if top is last else f"best {run_files.readable(name, top['primary']['value'])} at step {top['step']:,}",
    }


def goal(run: Run, label: str) -> str | None:
    """What is asked of the primary metric at the last checkpoint, and whether it is reached; None where nothing is asked."""
    wanted = run.goal(label)
    if wanted is None:
        return None
    name, value = run.results[label][-1]["primary"].values()
    sign = direction(name) or 1
    reached = "reached" if value is not None and sign * (value - wanted) >= 0 else "not reached"
    return f"goal {'≥' if sign > 0 else '≤'} {run_files.readable(name, wanted)}: {reached}"


def table(label: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows of an evaluator's table, main metrics apart from diagnostics; `best` is one checkpoint, that of the best primary metric."""
    last, top = found[-1], run_files.best(found)
    main, controls = run_files.main_metrics(last), run_files.controls(last)
    names = main + sorted(name for name in set(last["metrics"]) - set(main) if name.split("/")[0] not in controls)
    rows = [
        {"name": name, "last": last["metrics"][name], "best": top["metrics"].get(name),
         "controls": [last["metrics"].get(f"{control}/{name}") for control in controls]}
        for name in names
    ]  # fmt: skip
    return {
        "controls": controls,
        "label": label,
        "evaluator": last["evaluator"],
        "primary": last["primary"]["name"],
        "count": last["count"],
        "checkpoints": len(found),
        "last_step": last["step"],
        "best_step": top["step"],
        "rows": rows[: len(main)],
        "diagnostics": rows[len(main) :],
    }


def evaluation_panels(run: Run, label: str) -> list[dict[str, Any]]:
    """Curves over checkpoints of the recalls or accuracies (or the primary metric) of an evaluator."""
    found = run.results[label]
    if len(found) < 2:
        return []
    primary = found[-1]["primary"]["name"]
    families: dict[str, list[str]] = {}
    for name in run_files.main_metrics(found[-1]):
        if "@" in name or name == primary:
            families.setdefault(name.split("@")[0], []).append(name)
    panels = []
    for family, names in families.items():
        lines = {name.removeprefix(family) if len(names) > 1 else name: history(found, name) for name in names[:3]}
        if len(names) == 1:
            lines |= {control: history(found, f"{control}/{names[0]}") for control in run_files.controls(found[-1])}
        level = run.goal(label) if primary in names else None
        panels.append(panel(f"{label}: {family}", lines, share=run_files.is_share(names[0]), level=level))
    return panels


def training_panels(run: Run) -> list[dict[str, Any]]:
    """Curves of the training log; a panel without data is left out."""
    panels = []
    for title, wanted, share in TRAINING:
        lines = {legend: run.series(metric) for metric, legend in wanted.items()}
        lines = {legend: line for legend, line in lines.items() if line[0]}
        if lines:
            panels.append(panel(title, lines, share=share))
    return panels


def gallery(label: str, arrays) -> dict[str, Any]:
    """The pictures that a gallery's arrays allow."""
    return {
        "label": label,
        "ink": any(pictures.is_ink(arrays[key]) for key in ("query_images", "pair_images") if key in arrays),
        "grid": pictures.grid(arrays) if "query_images" in arrays else None,
        "heat": pictures.heat_map(arrays) if "pair_scores" in arrays else None,
        "map": pictures.embedding_map(arrays) if "map_image_embeddings" in arrays else None,
        "lists": pictures.ranked_lists(arrays) if "ranked_queries" in arrays else None,
        "confusion": pictures.confusion(arrays) if "confusion" in arrays else None,
    }


def facts(run: Run) -> list[tuple[str, str]]:
    """Name and value of what a reader needs to place the numbers; what is unknown is left out."""
    found, batch, steps = [], run_files.setting(run.config, "data", "global_batch"), run.lines[-1]["step"] if run.lines else None
    if steps is not None:
        found.append(("Steps", f"{steps:,} steps" + (f" of {batch:,} pairs, {steps * batch:,} examples" if batch else "")))
    if len(run.lines) > 1 and "time" in run.lines[0]:
        seconds = run.lines[-1]["time"] - run.lines[0]["time"]
        found.append((WALL_TIME, _duration(seconds)))
    environment = run.environment
    if environment.get("matmul_gflops"):
        found.append(("Measured float32 matmul", f"{environment['matmul_gflops']:,.0f} GFLOP/s"))
    known = (("cpu", "Processor"), ("cores", "Cores"), ("devices", "Devices"), ("processes", "Processes"), ("system", "System"),
             ("python", "Python"), ("commit", "Commit"), ("command", "Command"), ("time", "Started"))  # fmt: skip
    return found + [(title, str(environment[key])) for key, title in known if environment.get(key) not in (None, "")]


def panel(title: str, lines: dict, *, share: bool, level: float | None = None) -> dict[str, Any]:
    """Curves with a title and a legend; the fields that the templates' `panels` reads."""
    written = (lambda value: f"{100 * value:.1f}%") if share else plots.short
    legend = [
        {"name": name, "last": written(values[-1]), "number": i % len(plots.SERIES) + 1}
        for i, (name, (_, values)) in enumerate(lines.items()) if len(values)
    ]  # fmt: skip
    return {"title": title, "legend": legend, "svg": plots.curves(lines, share=share, goal=level), "goal": level is not None}


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def history(found: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of a metric where it is defined."""
    rows = [(result["step"], result["metrics"][name]) for result in found if result["metrics"].get(name) is not None]
    return [step for step, _ in rows], [value for _, value in rows]
