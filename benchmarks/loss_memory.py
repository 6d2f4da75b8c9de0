"""Memory and time of the exact loss over a large batch: tiles beside the whole matrix of logits.

    python -m benchmarks.loss_memory
    python -m benchmarks.loss_memory --sizes=4096,8192 --dense_up_to=8192 --loss=sigmoid

Each size compiles the value and all gradients of one loss: in tiles, by a textbook `jnp` formula, and by Tandem's own dense form.
Temporary bytes are what XLA plans beside inputs and gradients. Times are the best of a few alternating runs; processor seconds beside
them show how much a shared machine took away. The whole matrix is run only up to `dense_up_to` (it needs 3 to 4 arrays of B x B: 16 GiB
at 32,768). A peer that JAX compiles is one more entry of `arms`; another library needs its own `compiled` and `seconds`.
"""

import datetime
import functools
import json
import os
import pathlib
import platform
import resource
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from losses import LOSSES

SIZES = flags.DEFINE_list("sizes", ["4096", "8192", "16384", "32768"], "Pairs in the batch.")
WIDTH = flags.DEFINE_integer("width", 512, "Width of the embeddings.")
LOSS = flags.DEFINE_enum("loss", "infonce", sorted(LOSSES), "Which loss.")
BLOCK_SIZE = flags.DEFINE_integer("block_size", 1024, "Queries and passages of a tile.")
DENSE_UP_TO = flags.DEFINE_integer("dense_up_to", 16384, "Greatest size at which the whole matrix is run.")
REPEATS = flags.DEFINE_integer("repeats", 3, "Runs of each arm and size.")
RESULTS = pathlib.Path(__file__).parent / "results"
MEMORY_BOUND = 0.35  # of inputs and gradients: what DESIGN asks for


def textbook_infonce(zq, zp, logit_scale):
    """The symmetric loss as papers print it."""
    logits = logit_scale * zq @ zp.T
    own = jnp.diagonal(logits)
    return (jax.nn.logsumexp(logits, axis=1) + jax.nn.logsumexp(logits, axis=0) - 2 * own).mean() / 2


def textbook_sigmoid(zq, zp, logit_scale, logit_bias):
    """The sigmoid loss as its paper prints it."""
    logits = logit_scale * zq @ zp.T + logit_bias
    return -jax.nn.log_sigmoid(jnp.where(jnp.eye(len(zq), dtype=bool), logits, -logits)).sum(1).mean()


def ours(**options):
    """The mean of a Tandem loss."""
    return lambda *arrays: LOSSES[LOSS.value](*arrays, **options)[0].mean()


def arms():
    """Functions of the embeddings and scalars by the name of the arm."""
    textbook = {"infonce": textbook_infonce, "sigmoid": textbook_sigmoid}[LOSS.value]
    return {"tiles": ours(method="ring", block_size=BLOCK_SIZE.value), "dense jnp": textbook, "own dense": ours(method="dense")}


def batch(size):
    """Unit rows, each pair closer than chance, and the scalars of the loss."""
    rng = np.random.default_rng(0)
    zq, noise = (rng.standard_normal((size, WIDTH.value), np.float32) for _ in range(2))
    zp = 0.5 * zq + noise
    rows = [jnp.asarray(z / np.linalg.norm(z, axis=1, keepdims=True)) for z in (zq, zp)]
    return *rows, *[jnp.float32(x) for x in {"infonce": (20,), "sigmoid": (10, -10)}[LOSS.value]]


def compiled(function, arrays):
    """Value and gradients by all arrays, ready to run."""
    return jax.jit(jax.value_and_grad(function, argnums=tuple(range(len(arrays))))).lower(*arrays).compile()


def seconds(program, arrays):
    """Wall and processor time of one run."""
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    jax.block_until_ready(program(*arrays))
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def check(size):
    """All arms give one value and the same gradients, or the comparison means nothing."""
    arrays = batch(size)
    values = {name: jax.tree.map(np.asarray, compiled(function, arrays)(*arrays)) for name, function in arms().items()}
    for name, value in values.items():
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5, err_msg=name), value, values["tiles"])


def measure(size):
    """One row of the table: bytes of each arm, and times of those that are run."""
    arrays = batch(size)
    programs = {name: compiled(function, arrays) for name, function in arms().items()}
    run = {name: p for name, p in programs.items() if name == "tiles" or size <= DENSE_UP_TO.value}
    times = {name: [] for name in run}
    for _ in range(REPEATS.value):
        for name, program in run.items():
            times[name].append(seconds(program, arrays))
    row = {"pairs": size, "input_and_gradient_bytes": 2 * sum(a.nbytes for a in arrays)}
    for name, program in programs.items():
        row[name] = {"temp_bytes": program.memory_analysis().temp_size_in_bytes}
        if name in times:
            row[name]["seconds"], row[name]["processor_seconds"] = (min(t) for t in zip(*times[name], strict=True))
    row["temp_share"] = row["tiles"]["temp_bytes"] / row["input_and_gradient_bytes"]
    return row


def machine():
    """What the numbers depend on: processor, cores, their rate on a float32 matmul now, JAX, date."""
    model = [line.split(":")[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    square = jnp.ones((2048, 2048))
    program = jax.jit(jnp.matmul).lower(square, square).compile()
    rate = 2 * 2048**3 / min(seconds(program, (square, square))[0] for _ in range(6)) / 1e9
    return {
        "processor": model[0] if model else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "matmul_gflop_per_second": round(rate),
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "date": datetime.date.today().isoformat(),
    }


def main(_):
    here, rows, sizes = machine(), [], [int(size) for size in SIZES.value]
    check(min(sizes))
    for size in sizes:
        rows.append(measure(size))
        print(json.dumps(rows[-1]), flush=True)
    both = [row for row in rows if "seconds" in row["dense jnp"]][-1]
    result = {
        "question": f"Seconds for value and gradients of {LOSS.value} over {both['pairs']} pairs of width {WIDTH.value}, in tiles?",
        "ratio": both["dense jnp"]["seconds"] / both["tiles"]["seconds"],
        "ours": both["tiles"]["seconds"],
        "peer": both["dense jnp"]["seconds"],
        "peer_name": "dense jnp",
        "unit": "seconds",
        "machine": here,
        "runs_of_each": REPEATS.value,
        "processor_seconds_ratio": both["dense jnp"]["processor_seconds"] / both["tiles"]["processor_seconds"],
        "memory": {
            "question": f"Temporary bytes at {rows[-1]['pairs']} pairs, beside {MEMORY_BOUND} of inputs and gradients?",
            "ratio": MEMORY_BOUND / rows[-1]["temp_share"],
            "ours": rows[-1]["tiles"]["temp_bytes"],
            "peer": MEMORY_BOUND * rows[-1]["input_and_gradient_bytes"],
            "peer_name": "bound",
            "unit": "bytes",
        },
        "rows": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"loss_memory_{LOSS.value}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    app.run(main)
