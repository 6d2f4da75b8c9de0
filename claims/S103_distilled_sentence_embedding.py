"""S103, distilled sentence embedding: does a student learn more from a teacher's scores of pairs than from their labels?

Pairs of docstring and body, half of them true and half with the body of a function nearby, mostly of the same module. The teacher is large
and frozen: all-MiniLM-L6-v2 with a classifier of [a, b, a b, |a - b|] on top, fitted to the training pairs; it is no cross-encoder. Its
logits are computed once and read from the rows of a file. Students start at random, not from a pretrained tower, and are means of words
behind a linear map, so that there are no last four layers to join; their pairs' score comes from the paper's head, or from a scaled cosine.
How near students come to the teacher's own scores is not measured. Measured on packages held out: for each true pair, the share of false
pairs that score less (its mean is the area under the ROC curve).
"""

import json
import pathlib
from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from sklearn.neural_network import MLPClassifier

import retrieval
from claims import code_search
from claims.claim import Claim, Contrast
from configs import common
from core.checkpoint import committed_steps, restore
from core.workdir import read_json
from input_pipeline.sources.docstrings import Docstrings
from models import heads

RUNS = {"labels": 0.0, "teacher": 1.0, "both": 0.5, "both_dot": 0.5}
TEMPERATURE = 2.0  # of the teacher: its logits reach 10 and more
NEAR = 8  # a false pair's body is at most so many records further
DISTINCT = 2_000  # true pairs that are measured, at most


def get_config(arg: str = "") -> ConfigDict:
    """Of one run, a name in `RUNS`."""
    arg = common.parse_arg(arg, run="both", folder="prepared", quick=False)
    config = code_search.base(128)
    options = dict(files=(f"{arg.folder}/pairs.jsonl",), numbers=("label", "teacher"))
    config.data.sources.main = dict(name="pairs", weight=1.0, options=options)
    kind = "dot" if arg.run.endswith("dot") else "concat"
    config.model.heads.pair = dict(name="pair_score", inputs=dict(one="z_query", two="z_passage"), options=dict(kind=kind))
    options = dict(share=RUNS[arg.run], temperature=TEMPERATURE)
    config.losses.main = dict(name="score_distill", inputs=dict(score="pair_score"), weight=1.0, options=options)
    config.train.steps = 50 if arg.quick else 200
    config.checkpoint.every_steps = config.train.steps
    return config.lock()


def pairs_of(records: Sequence[Mapping], seed: int) -> list[tuple[str, str, int]]:
    """Each record as a true pair, and with the body of another one nearby as a false one."""
    rng, found = np.random.default_rng(seed), []
    for i, record in enumerate(records):
        found.append((record["query"], record["passage"], 1))
        near = [records[(i + step) % len(records)] for step in rng.permutation(np.arange(1, NEAR + 1))]
        other = next((one for one in near if one["id"] != record["id"]), None)
        if other is not None:
            found.append((record["query"], other["passage"], 0))
    return found


def prepare(folder: pathlib.Path, quick: bool) -> None:
    """Writes the training pairs with the teacher's logits: a classifier on MiniLM's vectors of both texts."""
    train = Docstrings()
    records = [train[i] for i in range(0, len(train), 8 if quick else 1)]
    pairs = pairs_of(records, seed=0)
    minilm = retrieval.load(code_search.minilm())
    vectors = {}
    for side in ("query", "passage"):
        texts = list(dict.fromkeys(record[side] for record in records))
        cut = [text[:300] for text in texts]  # about 75 tokens; students see 64
        vectors |= {(side, text): vector for text, vector in zip(texts, minilm.encode(cut), strict=True)}
    a, b = (np.stack([vectors[side, pair[place]] for pair in pairs]) for place, side in enumerate(("query", "passage")))
    features, labels = np.concatenate([a, b, a * b, np.abs(a - b)], axis=1), np.array([pair[2] for pair in pairs])
    teacher = MLPClassifier((64,), alpha=0.1, early_stopping=True, max_iter=20, random_state=0).fit(features, labels)
    probability = np.clip(teacher.predict_proba(features)[:, 1], 1e-6, 1 - 1e-6)
    with open(folder / "pairs.jsonl", "w", encoding="utf-8") as file:
        for (query, passage, label), p in zip(pairs, probability, strict=True):
            row = dict(query=query, positive=passage, label=label, teacher=float(np.log(p / (1 - p))))
            file.write(json.dumps(row) + "\n")


def measure(workdirs: Mapping[str, pathlib.Path]) -> dict[str, np.ndarray]:
    """For each true pair of the held-out packages, the share of their false pairs that score less, by run."""
    held_out = Docstrings(split="test")
    pairs = pairs_of([held_out[i] for i in range(min(len(held_out), DISTINCT))], seed=1)
    labels = np.array([label for _, _, label in pairs])
    found = {}
    for run, workdir in workdirs.items():
        scores = _scores(workdir, pairs)
        true, false = scores[labels == 1], np.sort(scores[labels == 0])
        below, not_above = (np.searchsorted(false, true, side) for side in ("left", "right"))
        found[run] = (below + not_above) / (2 * len(false))
    return found


def _scores(workdir: pathlib.Path, pairs: Sequence[tuple[str, str, int]]) -> np.ndarray:
    """The student's score of each pair, by its head."""
    model = retrieval.load(workdir)
    one, two = (model.encode([pair[place] for pair in pairs], view) for place, view in enumerate(("query", "passage")))
    (head,) = heads.make(ConfigDict(read_json(workdir / "config.json")).model)
    arrays = dict(z_query=jnp.asarray(one), z_passage=jnp.asarray(two))
    params = _head_params(workdir, head, arrays)
    return np.asarray(jax.jit(head.apply)(params, arrays)[f"{head.label}_score"])[:, 0]


def _head_params(workdir: pathlib.Path, head: heads.Head, arrays: Mapping[str, jax.Array]):
    """The parameters of a head in the last checkpoint, which an encoder leaves behind."""
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = nn.unbox(jax.eval_shape(lambda: head.init(jax.random.key(0), arrays)))
    like = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=here), shapes)
    folder = workdir / "checkpoints"
    return restore(folder, committed_steps(folder)[-1], "heads", {head.label: like})[head.label]


CLAIM = Claim(
    title="Distilled sentence embedding",
    says="A student that follows a teacher's scores as well as the labels tells true pairs from false ones better than by labels alone.",
    file=pathlib.Path(__file__),
    runs=tuple(RUNS),
    measure=measure,
    metric="ROC AUC",
    contrasts=(
        Contrast("both", "labels", 0.01),
        Contrast("teacher", "labels", 0.01),
        Contrast("both", "teacher", 0.01),
        Contrast("both", "both_dot", 0.01),
    ),
    prepare=prepare,
)
