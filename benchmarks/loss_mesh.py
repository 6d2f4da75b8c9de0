"""Ring beside gather: bytes and time of the exact loss on a mesh.

    python -m benchmarks.loss_mesh

Value and all gradients of InfoNCE on 8 virtual CPU devices. Temporary bytes are those of one device, as XLA plans them; bytes sent are
by `training.plan`, which a test holds to compiled programs. Virtual devices share cores and memory, so a transfer is a copy and
nothing overlaps: the times compare the work of the two, not their links.
"""

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks import measure
from losses.infonce import infonce
from training import plan

PAIRS = flags.DEFINE_integer("pairs", 4096, "Pairs in the batch.")
WIDTH = flags.DEFINE_integer("width", 512, "Width of the embeddings.")
DEVICES = flags.DEFINE_integer("devices", 8, "Virtual devices.")
ROUNDS = flags.DEFINE_integer("rounds", 3, "Runs of each; the best counts.")


def compiled(method, arrays):
    """Value and gradients, compiled under the ambient mesh."""

    def mean(zq, zp, scale):
        return infonce(zq, zp, scale, method=method)[0].mean()

    return jax.jit(jax.value_and_grad(mean, argnums=(0, 1, 2))).lower(*arrays).compile()


def main(_):
    jax.config.update("jax_num_cpu_devices", DEVICES.value)
    mesh = jax.make_mesh((DEVICES.value,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((PAIRS.value, WIDTH.value), np.float32) for _ in range(2)]
    split = NamedSharding(mesh, PartitionSpec("data"))
    with jax.set_mesh(mesh):
        arrays = *[jax.device_put(z / np.linalg.norm(z, axis=1, keepdims=True), split) for z in rows], jnp.float32(20)
        programs = {method: compiled(method, arrays) for method in ("ring", "gather")}
        values = [float(program(*arrays)[0]) for program in programs.values()]
        np.testing.assert_allclose(*values, rtol=1e-6)
        arms = measure.alternate({name: lambda p=program: p(*arrays) for name, program in programs.items()}, ROUNDS.value)
    for name, program in programs.items():
        arms[name]["temp_bytes"] = program.memory_analysis().temp_size_in_bytes
        arms[name]["sent_bytes"] = plan.loss_sent(name, PAIRS.value, WIDTH.value, DEVICES.value)
    ours, peer = arms["ring"]["temp_bytes"], arms["gather"]["temp_bytes"]
    question = f"Temporary bytes of a device at {PAIRS.value} pairs of width {WIDTH.value} on {DEVICES.value} devices, ring beside gather?"
    result = dict(question=question, ratio=peer / ours, ours=ours, peer=peer, peer_name="gather", unit="bytes")
    measure.save("loss_mesh", result | {"machine": measure.machine(), "arms": arms})


if __name__ == "__main__":
    app.run(main)
