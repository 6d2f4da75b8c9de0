"""Losses in tiles: equal to the definition and to the dense loss, on any number of devices, without ever a B x B array."""

import inspect
import re

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.infonce import NEGATIVES, POSITIVES, infonce
from losses.sigmoid import sigmoid
from tests.losses import drawn
from tests.losses.test_contracts import call, on, value_and_gradients
from tests.oracles import pair_losses

SIZES = dict(
    seed=st.integers(0, 10**6), devices=st.sampled_from([1, 2, 4, 8]), each=st.integers(1, 3), extra=st.integers(0, 3),
    width=st.integers(1, 4), hard=st.integers(0, 2), classes=st.integers(1, 6), padded=st.integers(0, 2),
    left_out=st.sets(st.sampled_from(drawn.OPTIONAL)), method=st.sampled_from(["ring", "gather"]),
    block_size=st.integers(1, 5), negatives=st.sampled_from(NEGATIVES),
)  # fmt: skip


def mesh_of(devices):
    """Both batch axes in use where there are enough devices."""
    shape = (devices // 2, 2, 1) if devices > 2 else (devices, 1, 1)
    auto = (jax.sharding.AxisType.Auto,) * 3
    return jax.make_mesh(shape, ("data", "fsdp", "tensor"), axis_types=auto, devices=jax.devices()[:devices])


def check(loss, seed, devices, each, extra, width, hard, classes, padded, left_out, method, block_size, **options):
    """Value by the oracle; value and every gradient by the dense loss on one device; all in float64."""
    queries = devices * each
    batch = drawn.batch(seed, queries, queries + extra, width, hard, classes, min(padded, queries - 1), np.float64)
    arrays = drawn.inputs(loss, batch, without=left_out, teacher=options.get("positives") == "teacher")
    with jax.enable_x64(True):
        dense = value_and_gradients(loss, arrays, **options)
        mesh = mesh_of(devices)
        with jax.set_mesh(mesh):
            tiled = dict(method=method, block_size=block_size, **options)
            split = {k: v for k, v in arrays.items() if extra == 0 or not k.startswith("zp")}  # N passages need not split evenly
            found = value_and_gradients(loss, arrays | on(mesh, split), **tiled)
        np.testing.assert_allclose(found[0], getattr(pair_losses, loss.__name__)(**arrays, **options), rtol=1e-11, atol=1e-11)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11), found, dense)


@settings(deadline=None, max_examples=16, derandomize=True)
@given(**SIZES, symmetric=st.booleans(), positives=st.sampled_from(POSITIVES))
def test_infonce_is_exact(**drawn_values):
    check(infonce, **drawn_values)


@settings(deadline=None, max_examples=8, derandomize=True)
@given(**SIZES)
def test_sigmoid_is_exact(**drawn_values):
    check(sigmoid, **drawn_values)


def largest(text, operation=""):
    """Elements of the largest array that a compiled program, or one kind of its operations, makes or takes."""
    lines = [line for line in text.splitlines() if f" {operation}" in line and "=" in line]
    shapes = [m for line in lines for m in re.findall(r"\b[a-z]+[0-9]+\[([0-9,]+)\]", line.split("=", 1)[1])]
    return max((int(np.prod([int(n) for n in shape.split(",")])) for shape in shapes), default=0)


@pytest.mark.parametrize("loss", [infonce, sigmoid], ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("method", ["dense", "ring", "gather"])
def test_no_array_grows_as_the_batch_squared(loss, method, devices):
    """In the compiled forward and backward pass, with labels and padding; and only embeddings and rows are ever gathered."""
    queries, width, block = 1024, 4, 32
    arrays = drawn.inputs(loss, drawn.batch(queries=queries, width=width, hard=1))
    mesh = mesh_of(devices)
    with jax.set_mesh(mesh):

        def gradients(arrays):
            return value_and_gradients(loss, arrays, method=method, block_size=block)

        text = jax.jit(gradients).lower(on(mesh, arrays)).compile().as_text()
    share = queries * queries // devices
    if method == "dense":
        assert largest(text) >= share  # what the others must not do
        return
    # The largest are a tile, and the embeddings of all queries with the passages' labels beside them.
    assert largest(text) <= 2 * queries * width < share / 8
    assert largest(text, "all-gather") == (queries * width if method == "gather" and devices > 1 else 0)


def test_a_batch_that_does_not_split_names_the_key():
    arrays = drawn.inputs(sigmoid, drawn.batch(queries=6))
    with jax.set_mesh(mesh_of(4)), pytest.raises(ValueError, match="config.data.global_batch to 4 or 8"):
        call(sigmoid, arrays, method="ring")


def test_a_tile_of_nothing_names_the_key():
    with pytest.raises(ValueError, match="options.block_size to 1 or more"):
        call(infonce, drawn.inputs(infonce, drawn.batch()), method="ring", block_size=0)


def test_bfloat16_operands_give_nearly_the_dense_gradients():
    """Tiles round their cotangents to bfloat16 before the matmul: 2^-9 of each, which averages out over columns."""
    arrays = drawn.inputs(infonce, drawn.batch(queries=64, width=16))
    dense, tiled = (value_and_gradients(infonce, arrays, method=m, matmul_dtype="bfloat16") for m in ("dense", "ring"))
    np.testing.assert_allclose(tiled[0], dense[0], rtol=1e-6)
    for name, expected in dense[1].items():
        assert np.linalg.norm(tiled[1][name] - expected) <= 2**-7 * np.linalg.norm(expected), name


@pytest.mark.parametrize("loss", [infonce, sigmoid], ids=lambda loss: loss.__name__)
def test_options_of_both_methods_are_documented(loss):
    assert all(f"{name}:" in inspect.getdoc(loss) for name in inspect.signature(loss).parameters)
