"""README.md of an exported folder: YAML that hubs read, then what a run says about itself."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

LIBRARIES = {"sentence_transformers": "sentence-transformers", "open_clip": "open_clip"}
SIZES = ("width", "layers", "heads", "image_size", "grid", "patch_size", "length", "vocab_size")
TASKS = {"image": "zero-shot-image-classification", "text": "feature-extraction"}


def card(name: str, format: str, model: Mapping[str, Any], run: Mapping[str, Any] | None, results: Sequence[Mapping[str, Any]] = ()) -> str:
    """The text of a model card.

    Args:
        name: of the model.
        format: of the folder.
        model: `config.model`.
        run: `{"step", "config"}` of the run that made it, or None for a model of another library.
        results: files of evals, as the eval job writes them.
    """
    images = any("patch_size" in entry["options"] or "image_size" in entry["options"] for entry in model["towers"].values())
    task = "sentence-similarity" if format == "sentence_transformers" else TASKS["image" if images else "text"]
    front = {"library_name": LIBRARIES.get(format, "transformers"), "pipeline_tag": task, "tags": ["tandem", "embeddings"]}
    sources = {} if run is None else run["config"]["data"]["sources"]
    bases = [str(e["init"]["path"]).rstrip("/").split("/")[-1] for e in model["towers"].values() if e.get("init")]
    front |= {"datasets": [entry["name"] for entry in sources.values()]} if sources else {}
    front |= {"base_model": bases} if bases else {}
    front |= {"model-index": [_index(name, task, results)]} if results else {}
    # JSON is YAML: no string of a config can break out of its quotes.
    header = "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items())
    parts = [f"---\n{header}\n---\n# {name}", _towers(model), _training(run, sources), _table(results), GOLDEN]
    return "\n\n".join(part for part in parts if part) + "\n"


GOLDEN = (
    "## Golden vectors\n\n`golden.npz` holds inputs (texts, token ids, images) and the unit vectors that the source model makes of them in "
    "float32; the weights in this folder were read back and gave the same within 1e-5."
)


def _index(name: str, task: str, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    made = [
        {
            "task": {"type": task},
            "dataset": {"name": r["label"], "type": r["label"]},
            "metrics": [{"type": r["primary"]["name"], "value": r["primary"]["value"]}],
        }
        for r in results
    ]
    return {"name": name, "results": made}


def _towers(model: Mapping[str, Any]) -> str:
    rows = []
    for label, entry in model["towers"].items():
        o = entry["options"]
        sizes = [f"{key} {o[key]}" for key in SIZES if key in o]
        pooled = f"pooled by {o['pooling']}, " if "pooling" in o else ""
        vector = o.get("embed_dim") or o.get("width")
        rows.append(f"- {label}: `{entry['name']}`, {', '.join(sizes)}; {pooled}vectors of {vector} values, compared by cosine")
    return "\n".join(rows)


def _training(run: Mapping[str, Any] | None, sources: Mapping[str, Any]) -> str:
    if run is None:
        return ""
    config = run["config"]
    losses = ", ".join(f"{label} ({entry['name']})" for label, entry in config["losses"].items() if isinstance(entry, Mapping))
    data = ", ".join(f"{label} (`{entry['name']}`, weight {entry['weight']})" for label, entry in sources.items())
    return (
        f"## Training\n\nTrained with Tandem for {run['step']} steps of {config['data']['global_batch']} examples.\n\n- data: {data}\n"
        f"- losses: {losses}\n- optimizer: {config['optimizer']['name']}, learning rate {config['optimizer']['learning_rate']}\n"
        f"- seed: {config['seed']}"
    )


def _table(results: Sequence[Mapping[str, Any]]) -> str:
    if not results:
        return ""
    rows = [f"| {r['label']} | {name} | {value:.4f} | {r['count']} |" for r in results for name, value in sorted(r["metrics"].items())]
    return "\n".join(["## Results\n", "| evaluation | metric | value | count |", "|---|---|---|---|", *rows])
