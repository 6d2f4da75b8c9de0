"""Seconds from embeddings to scores: retrieval beside CLIP_benchmark, a linear probe beside MTEB's classifier.

    python -m benchmarks.evaluate                              # needs requirements-parity.txt and CLIP_benchmark
    python -m benchmarks.evaluate --images=500 --captions=2500

Random unit rows of width 512, the same for all. Retrieval: recall@1, 5 and 10 in both directions, 5,000 images with five captions each;
CLIP_benchmark runs its own `zeroshot_retrieval.evaluate` on a model that hands out the rows in batches of 64, in float32. The recalls
must agree to four queries, or the run stops: CLIP_benchmark scores in float32, in which near scores change places. Linear probe: one fit on
8,000 of 10,000 rows of ten overlapping classes, measured on the others; MTEB's evaluator with its own model, and Tandem's with as many
iterations. Tandem's sweep, which MTEB lacks, is a row of its own. Compilation is not timed.

CLIP_benchmark's release asks for packages that this needs not: `pip install --no-deps --target=FOLDER clip-benchmark`, and FOLDER on
PYTHONPATH.
"""

import json
from collections.abc import Callable

import numpy as np
from absl import app, flags

from benchmarks import measure, peers
from evals import linear_probe, metrics
from input_pipeline.tasks import Labelled, ProbeTask

IMAGES = flags.DEFINE_integer("images", 5000, "Images.")
CAPTIONS = flags.DEFINE_integer("captions", 25_000, "Captions, a multiple of the images.")
ROWS = flags.DEFINE_integer("rows", 10_000, "Rows of the probe, a fifth of which it is measured on.")
EMBEDDING_WIDTH = flags.DEFINE_integer("embedding_width", 512, "Width of all rows.")
EVALUATE_ROUNDS = flags.DEFINE_integer("evaluate_rounds", 2, "Runs of each arm.")
KS = (1, 5, 10)
NAMES = {"img2txt": "text_retrieval_recall", "txt2img": "image_retrieval_recall"}  # CLIP_benchmark names what is retrieved
ITERATIONS = 100  # of MTEB's classifier


def unit_rows(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random rows of length 1, float32."""
    rows = rng.standard_normal((count, EMBEDDING_WIDTH.value), np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def retrieval_arms() -> dict[str, Callable[[], dict[str, float]]]:
    """Both libraries' way from the same rows to recalls by name."""
    rng, each = np.random.default_rng(0), CAPTIONS.value // IMAGES.value
    images, texts = unit_rows(rng, IMAGES.value), unit_rows(rng, IMAGES.value * each)
    texts += 0.12 * np.repeat(images, each, axis=0)  # recalls between chance and 1
    owner = np.repeat(np.arange(IMAGES.value), each)
    pairs = np.stack([owner, np.arange(len(owner))], axis=1)

    def ours():
        z = metrics.unit(images, "images"), metrics.unit(texts, "texts")
        there, back = metrics.ranks(*z, pairs), metrics.ranks(*z[::-1], pairs[:, ::-1])
        return metrics.retrieval_metrics(there, KS, "img2txt") | metrics.retrieval_metrics(back, KS, "txt2img")

    peer = peers.clip_benchmark_recalls(images, texts.reshape(IMAGES.value, each, -1), KS)

    def theirs():
        found = peer()
        return {f"{direction}/recall@{k}": found[f"{name}@{k}"] for direction, name in NAMES.items() for k in KS}

    return {"tandem": ours, "CLIP_benchmark": theirs}


def check_recalls(found: dict[str, dict[str, float]]) -> dict[str, float]:
    """The greatest disagreement in queries by direction.

    Raises:
        ValueError: more than four queries.
    """
    ours, theirs = found["tandem"], found["CLIP_benchmark"]
    worst = {}
    for direction, queries in (("img2txt", IMAGES.value), ("txt2img", CAPTIONS.value)):
        apart = [abs(ours[f"{direction}/recall@{k}"] - theirs[f"{direction}/recall@{k}"]) * queries for k in KS]
        worst[direction] = round(float(max(apart)), 2)
    if max(worst.values()) > 4:
        raise ValueError(f"recalls differ by {worst} queries, so the arms do not compute the same: {found}")
    return worst


def probe_arms() -> tuple[dict[str, Callable[[], float]], Callable[[], float]]:
    """Accuracy of one fit by both libraries, and of Tandem's with its sweep."""
    rng, classes = np.random.default_rng(1), 10
    labels = np.arange(ROWS.value) % classes
    rows = unit_rows(rng, ROWS.value) + 0.12 * unit_rows(rng, classes)[labels]
    cut = ROWS.value * 4 // 5
    part = lambda some: Labelled(rows[some], labels[some])
    data = type("Data", (), {"probe": lambda self: ProbeTask(part(slice(cut)), part(slice(cut, None)))})()
    options = {"iterations": ITERATIONS, "inverse_strength": 1.0}  # MTEB leaves scikit-learn's strength as it is
    ours = lambda sweep: linear_probe.linear_probe({"text": np.asarray}, data, sweep=sweep, **options).metrics["accuracy@1"]
    theirs = peers.mteb_classifier(rows[:cut], labels[:cut], rows[cut:])
    arms = {"tandem": lambda: ours(False), "MTEB": lambda: float(np.mean(theirs() == labels[cut:]))}
    return arms, lambda: ours(True)


def measured(arms: dict[str, Callable]) -> tuple[dict, dict]:
    """What each arm returns, and its times; Tandem's runs once before, for it compiles."""
    found = {"tandem": arms["tandem"]()}
    kept = {name: lambda name=name, arm=arm: found.__setitem__(name, arm()) for name, arm in arms.items()}
    times = measure.alternate(kept, EVALUATE_ROUNDS.value)
    return found, times


def main(_):
    here, rows = measure.machine(), {}
    found, rows["retrieval"] = measured(retrieval_arms())
    apart = check_recalls(found)
    print(json.dumps(rows["retrieval"]), flush=True)
    arms, sweep = probe_arms()
    accuracy, rows["probe"] = measured(arms)
    rows["sweep of 15 fits"] = dict(zip(("seconds", "processor_seconds"), measure.seconds(sweep), strict=True))
    retrieval, probe = rows["retrieval"], rows["probe"]
    processor = lambda times, peer: times[peer]["processor_seconds"] / times["tandem"]["processor_seconds"]
    result = {
        "question": f"Seconds for recall@1, 5, 10 of {IMAGES.value:,} images x {CAPTIONS.value:,} captions, both directions?",
        "ratio": retrieval["CLIP_benchmark"]["seconds"] / retrieval["tandem"]["seconds"],
        "ours": retrieval["tandem"]["seconds"],
        "peer": retrieval["CLIP_benchmark"]["seconds"],
        "peer_name": "CLIP_benchmark's zeroshot_retrieval.evaluate, batch 64, float32",
        "unit": "seconds",
        "machine": here,
        "runs_of_each": EVALUATE_ROUNDS.value,
        "processor_seconds_ratio": processor(retrieval, "CLIP_benchmark"),
        "queries_apart": apart,
        "linear_probe": {
            "question": f"Seconds for a linear probe of {ROWS.value:,} rows of width {EMBEDDING_WIDTH.value}?",
            "ratio": probe["MTEB"]["seconds"] / probe["tandem"]["seconds"],
            "ours": probe["tandem"]["seconds"],
            "peer": probe["MTEB"]["seconds"],
            "peer_name": f"MTEB's SklearnEvaluator, {ITERATIONS} iterations",
            "unit": "seconds",
            "processor_seconds_ratio": processor(probe, "MTEB"),
            "accuracy": accuracy,
        },
        "rows": rows,
    }
    measure.save("evaluate", result)


if __name__ == "__main__":
    app.run(main)
