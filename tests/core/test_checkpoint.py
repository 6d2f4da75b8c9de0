"""Checkpoints: what is saved, what counts, what is kept, and onto which mesh it comes back."""

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from core import mesh as meshes
from core.checkpoint import Checkpoints, committed_steps, read_facts, restore

SPECS = {"kernel": P("fsdp", "tensor"), "bias": P()}


def tree(mesh, offset=0.0):
    """Two parameters on a mesh."""
    values = {"kernel": jnp.arange(32.0).reshape(8, 4) + offset, "bias": jnp.arange(4.0) - offset}
    return {name: jax.device_put(value, NamedSharding(mesh, SPECS[name])) for name, value in values.items()}


def like(mesh):
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), tree(mesh))


def save(folder, *steps, keep_last=10, keep_every_steps=None):
    """Saves some steps as one run would."""
    written = Checkpoints(folder, keep_last=keep_last, keep_every_steps=keep_every_steps)
    mesh = meshes.make(1, 4, 2)
    for step in steps:
        items = {"params": tree(mesh, step), "opt": {"0": {"mu": jnp.full(3, step)}}, "ema": {}}
        written.save(step, items, position=2 * step, meta={"examples": 100 * step, "note": "x"})
        written.wait()
    written.close()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    save(folder, 10, 20)
    return folder


@pytest.mark.parametrize("sizes, devices", [((1, 1, 1), 1), ((2, 2, 2), 8), ((1, 2, 4), 8)], ids=str)
def test_params_come_back_alone_on_another_mesh(saved, sizes, devices):
    mesh = meshes.make(*sizes, devices=jax.devices()[:devices])
    found = restore(saved, 10, "params", like(mesh))
    jax.tree.map(np.testing.assert_array_equal, found, tree(mesh, 10))
    jax.tree.map(lambda a, b: a.sharding.is_equivalent_to(b.sharding, a.ndim) or pytest.fail(str(a.sharding)), found, tree(mesh))


def test_position_and_facts_come_back(saved):
    assert committed_steps(saved) == [10, 20]
    assert read_facts(saved, 20, "data") == {"position": 40}
    assert read_facts(saved, 20) == {"examples": 2000, "note": "x"}


@pytest.mark.parametrize("step, item", [(10, "ema"), (30, "params")])
def test_a_missing_step_or_item_is_named(saved, step, item):
    with pytest.raises(FileNotFoundError, match=f"{step}/{item} does not exist; the checkpoint was deleted, or written without '{item}'"):
        restore(saved, step, item, like(meshes.make()))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax drops the reads that it had begun
def test_another_shape_or_tree_is_refused(saved):
    mesh = meshes.make()
    wide = like(mesh) | {"bias": jax.ShapeDtypeStruct((5,), jnp.float32, sharding=NamedSharding(mesh, P()))}
    with pytest.raises(ValueError, match=r"\(5,\)"):
        restore(saved, 10, "params", wide)
    with pytest.raises(ValueError, match="kernel"):
        restore(saved, 10, "params", {"bias": like(mesh)["bias"]})
    gc.collect()  # here, where the warning is expected


def test_no_folder_holds_no_steps(tmp_path):
    assert committed_steps(tmp_path / "none") == []


def test_what_is_not_committed_neither_counts_nor_blocks(tmp_path):
    """Orbax counts a half-written later step, and would silently leave out every step up to it."""
    save(tmp_path, 10)
    for name in ("20", "30.orbax-checkpoint-tmp"):
        (tmp_path / name / "params").mkdir(parents=True)
    assert committed_steps(tmp_path) == [10]
    save(tmp_path, 13, 20)
    assert committed_steps(tmp_path) == [10, 13, 20]
    jax.tree.map(np.testing.assert_array_equal, restore(tmp_path, 20, "params", like(meshes.make())), tree(meshes.make(), 20))


def test_the_last_and_every_nth_are_kept(tmp_path):
    save(tmp_path, 1, 2, 3, 4, 5, 6, 7, keep_last=2, keep_every_steps=3)
    assert committed_steps(tmp_path) == [3, 6, 7]


def test_a_committed_step_is_left_as_it_is(tmp_path):
    save(tmp_path, 5)
    before = read_facts(tmp_path, 5)
    written = Checkpoints(tmp_path, keep_last=10, keep_every_steps=None)
    written.save(5, {"params": tree(meshes.make(), 99)}, position=0, meta={})
    written.close()
    assert read_facts(tmp_path, 5) == before


def test_a_step_before_the_last_is_refused_aloud(tmp_path):
    save(tmp_path, 5)
    written = Checkpoints(tmp_path, keep_last=10, keep_every_steps=None)
    with pytest.raises(RuntimeError, match="already holds step 5, so Orbax leaves out step 3"):
        written.save(3, {"params": tree(meshes.make())}, position=0, meta={})
    written.close()


def test_arrays_may_be_donated_right_after_save(tmp_path):
    written = Checkpoints(tmp_path, keep_last=10, keep_every_steps=None)
    mesh = meshes.make()
    big = jax.device_put(jnp.zeros(2**20), meshes.replicated(mesh))
    add = jax.jit(lambda a: a + 1, donate_argnums=0)
    written.save(1, {"params": {"big": big}}, position=0, meta={})
    for _ in range(5):
        big = add(big)
    big.block_until_ready()
    written.close()
    found = restore(tmp_path, 1, "params", {"big": jax.ShapeDtypeStruct(big.shape, big.dtype, sharding=big.sharding)})
    assert float(jnp.max(found["big"])) == 0
