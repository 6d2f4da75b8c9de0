"""Memory and time of the exact loss over a large batch: tiles beside the whole matrix of logits, and beside open_clip.

    python -m benchmarks.loss_memory
    python -m benchmarks.loss_memory --sizes=4096,8192 --loss=sigmoid --open_clip_up_to=0

Each size computes the value and all gradients of one loss: in tiles, by a textbook `jnp` formula, by Tandem's own dense form, and by
open_clip's loss (of one process; its exchange of chunks needs several). Temporary bytes are what XLA plans beside inputs and gradients;
nothing plans open_clip's. Times are the best of a few alternating runs; processor seconds beside them show how much a shared machine
took away. The whole matrix needs 3 to 4 arrays of B x B: 13 GB at 32,768.

Where the time goes (16,384 pairs of width 512, two AMD EPYC cores, 2026-11-21): 40 processor nanoseconds a logit, 37 of them in four
matmuls (logits twice, two gradients) at about 110 GFLOP/s a core; exponentials, sums and copies are the rest. The matrix keeps its
logits, so it takes three matmuls, and passes over memory. A fifth of the arithmetic cannot go: the column sums of a symmetric loss must
be known before the first gradient, and keeping logits costs B x B. What helped: queries transposed once for all passages (3%), no pass for
the scale and for own logits (2%). What did not: tiles of 2,048, and one exponential for both directions.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks import measure, peers
from losses import LOSSES

SIZES = flags.DEFINE_list("sizes", ["4096", "8192", "16384", "32768"], "Pairs in the batch.")
WIDTH = flags.DEFINE_integer("width", 512, "Width of the embeddings.")
LOSS = flags.DEFINE_enum("loss", "infonce", ["infonce", "sigmoid"], "Which loss.")
BLOCK_SIZE = flags.DEFINE_integer("block_size", 1024, "Queries and passages of a tile.")
DENSE_UP_TO = flags.DEFINE_integer("dense_up_to", 32768, "Greatest size at which the whole matrix is run.")
REPEATS = flags.DEFINE_integer("repeats", 3, "Runs of each arm and size.")
OPEN_CLIP_UP_TO = flags.DEFINE_integer("open_clip_up_to", 16384, "Greatest size at which open_clip's loss is run; 0: never.")
OWN_DENSE_UP_TO = flags.DEFINE_integer("own_dense_up_to", 16384, "Greatest size at which Tandem's dense form is run.")
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


def peer(arrays):
    """open_clip's loss on the same arrays: a call that gives value and gradients as numpy arrays."""
    torch, library = peers.torch(), peers.open_clip()
    loss = {"infonce": library.loss.ClipLoss, "sigmoid": library.loss.SigLipLoss}[LOSS.value]()
    leaves = [torch.tensor(np.asarray(a), requires_grad=True) for a in arrays]

    def run():
        for leaf in leaves:
            leaf.grad = None
        value = loss(*leaves)
        value.backward()
        return value.detach().numpy(), tuple(leaf.grad.numpy() for leaf in leaves)

    return run


def calls(arrays, names, programs):
    """What is timed, by the name of the arm."""
    made = {name: functools.partial(programs[name], *arrays) for name in names if name != "open_clip"}
    return made | ({"open_clip": peer(arrays)} if "open_clip" in names else {})


def check(size):
    """All arms give one value and the same gradients, or the comparison means nothing."""
    arrays = batch(size)
    programs = {name: compiled(function, arrays) for name, function in arms().items()}
    names = [*programs, *(["open_clip"] if OPEN_CLIP_UP_TO.value else [])]
    values = {name: jax.tree.map(np.asarray, call()) for name, call in calls(arrays, names, programs).items()}
    for name, value in values.items():
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5, err_msg=name), value, values["tiles"])


def measured(size):
    """One row of the table: bytes of each arm, and times of those that are run."""
    arrays = batch(size)
    programs = {name: compiled(function, arrays) for name, function in arms().items()}
    limits = {"tiles": size, "dense jnp": DENSE_UP_TO.value, "own dense": OWN_DENSE_UP_TO.value, "open_clip": OPEN_CLIP_UP_TO.value}
    names = [name for name, limit in limits.items() if size <= limit]
    row = {"pairs": size, "input_and_gradient_bytes": 2 * sum(a.nbytes for a in arrays)}
    times = measure.alternate(calls(arrays, names, programs), REPEATS.value)
    for name in {**programs, **times}:
        row[name] = {"temp_bytes": programs[name].memory_analysis().temp_size_in_bytes} if name in programs else {}
        row[name] |= times.get(name, {})
    row["temp_share"] = row["tiles"]["temp_bytes"] / row["input_and_gradient_bytes"]
    return row


def main(_):
    here, rows, sizes = measure.machine(), [], [int(size) for size in SIZES.value]
    check(min(sizes))
    for size in sizes:
        rows.append(measured(size))
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
        "other_peers": {
            name: both[name]["seconds"] / both["tiles"]["seconds"] for name in ("own dense", "open_clip") if "seconds" in both.get(name, {})
        },
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
    measure.save(f"loss_memory_{LOSS.value}", result)


if __name__ == "__main__":
    app.run(main)
