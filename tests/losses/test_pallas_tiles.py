"""The Pallas kernel, interpreted: equal to XLA's tiles and to the oracle; and its lowering for GPUs, which needs none."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from losses import pallas_tiles, tiles
from losses.infonce import infonce
from losses.sigmoid import sigmoid
from losses.tiles import Plan, Scalars, Side
from tests.losses import drawn
from tests.losses.test_blockwise import mesh_of
from tests.losses.test_contracts import on, value_and_gradients
from tests.oracles import pair_losses

PIECE = pallas_tiles.Piece(16, 16, 16)  # several to a tile of the sizes below, the last ones ragged
CASES = [
    ("softmax", "own", True, False), ("softmax", "mean", True, True), ("softmax", "sum", True, True), ("softmax", "exclude", False, True),
    ("softmax", None, False, False), ("sigmoid", None, False, True),
]  # fmt: skip


def side(rng, rows, width, labelled, weighted, dtype):
    weight = rng.normal(size=rows).astype(np.float32)
    weight[rng.integers(rows)] = -np.inf
    labels = (rng.integers(0, 5, rows).astype(np.int32),) * labelled
    z = jnp.asarray(drawn.unit(rng.normal(size=(rows, width))), dtype)
    return jax.tree.map(jnp.asarray, Side(z, rng.permutation(rows).astype(np.int32), labels, weight if weighted else None))


def tile(plan, weighted, queries=37, passages=20, width=19, dtype=jnp.float32):
    """Scalars, both sides, and what the backward pass knows of each row."""
    rng = np.random.default_rng(queries)
    labelled = plan.target in ("mean", "sum", "exclude") or plan.kind == "sigmoid"
    q, p = (side(rng, rows, width, labelled, weighted, dtype) for rows in (queries, passages))
    scalars = Scalars(*(jnp.float32(x) for x in (7, -2, 0)))
    by = [jnp.asarray(rng.normal(size=n), jnp.float32) for n in (queries, queries, passages, passages)]

    @jax.jit
    def known(scalars, q, p, by):
        rows, columns = tiles.tile_sums(plan, scalars, q, p)
        return tiles.saved(plan, rows, *by[:2]), tiles.saved(plan, columns, *by[2:]) if plan.symmetric else None

    return scalars, q, p, *known(scalars, q, p, by)


@pytest.mark.parametrize("kind, target, symmetric, weighted", CASES, ids=str)
def test_a_tile_is_that_of_xla(kind, target, symmetric, weighted):
    plan = Plan(kind, target, symmetric, "ring", 64, "float32", "interpret")

    def both(module, piece, scalars, q, p, row, column):
        return (
            module.tile_sums(plan, scalars, q, p, **piece),
            module.tile_gradient(plan, scalars, q, p, row, column, **piece),
        )

    known = tile(plan, weighted)
    found, expected = (jax.jit(functools.partial(both, *of))(*known) for of in ((pallas_tiles, dict(piece=PIECE)), (tiles, {})))
    # float32 sums of up to 37 terms in another order
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), found, expected)


SIZES = dict(
    seed=st.integers(0, 10**6), queries=st.integers(2, 24), extra=st.integers(0, 3),
    width=st.integers(1, 40), hard=st.integers(0, 2), left_out=st.sets(st.sampled_from(drawn.OPTIONAL)),
    method=st.sampled_from(["ring", "gather"]), block_size=st.integers(5, 20),
)  # fmt: skip


def check(loss, seed, queries, extra, width, hard, left_out, method, block_size, **options):
    """Value by the oracle, gradients by the dense loss, both in float64."""
    arrays = drawn.inputs(loss, drawn.batch(seed, queries, queries + extra, width, hard, padded=1), without=left_out)
    wide = {name: array.astype(np.float64) if array.dtype == np.float32 else array for name, array in arrays.items()}
    with jax.enable_x64(True):
        _, expected = jax.tree.map(np.asarray, value_and_gradients(loss, wide, **options))
    value, gradients = value_and_gradients(loss, arrays, method=method, block_size=block_size, kernel="interpret", **options)
    # float32: logits up to 12 are rounded at 1e-6, which their exponentials and sums of some dozens keep
    np.testing.assert_allclose(value, getattr(pair_losses, loss.__name__)(**wide, **options), rtol=2e-5, atol=2e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5), gradients, expected)


@settings(deadline=None, max_examples=4, derandomize=True)
@given(**SIZES, symmetric=st.booleans(), positives=st.sampled_from(["mean", "sum", "exclude"]))
def test_infonce_is_exact(**drawn_values):
    check(infonce, **drawn_values)


@settings(deadline=None, max_examples=2, derandomize=True)
@given(**SIZES)
def test_sigmoid_is_exact(**drawn_values):
    check(sigmoid, **drawn_values)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("kind, target, symmetric, weighted", CASES, ids=str)
def test_the_kernel_lowers_for_gpus_and_keeps_logits_off_their_memory(kind, target, symmetric, weighted, dtype):
    """To Triton, on any machine. A width that no piece divides; of arrays as large as the tile, only the gradient is made."""
    plan = Plan(kind, target, symmetric, "ring", 64, dtype, "pallas")
    arguments = jax.eval_shape(lambda: tile(plan, weighted, 512, 384, 100, jnp.bfloat16))
    text = {}
    for name, count in (("tile_sums", 3), ("tile_gradient", 5)):
        function = jax.jit(functools.partial(getattr(pallas_tiles, name), plan))
        text[name] = function.trace(*arguments[:count]).lower(lowering_platforms=("cuda",)).as_text()
        assert len(re.findall("custom_call.*triton", text[name])) == 1
        assert "stablehlo.dot_general" not in text[name]
    assert "512x384x" not in text["tile_sums"]
    assert set(re.findall(r"512x384x(\w+)", text["tile_gradient"])) == {{"bfloat16": "bf16", "float32": "f32"}[dtype]}


@pytest.mark.parametrize("method", ["ring", "gather"])
@pytest.mark.parametrize("loss", [infonce, sigmoid], ids=lambda loss: loss.__name__)
def test_a_loss_on_a_mesh_lowers_for_gpus(loss, method):
    """Value and gradients: a kernel for the sums and one for the gradient, and the same for hard negatives."""
    arrays, mesh = drawn.inputs(loss, drawn.batch()), mesh_of(4)
    with jax.set_mesh(mesh):
        program = jax.jit(lambda a: value_and_gradients(loss, a, method=method, kernel="pallas")).trace(on(mesh, arrays))
    text = program.lower(lowering_platforms=("cuda",)).as_text()
    assert len(re.findall("custom_call.*triton", text)) == (8 if method == "ring" else 4)  # a ring's last hop is by itself


def test_the_interpreter_names_the_key_on_a_mesh():
    with jax.set_mesh(mesh_of(2)), pytest.raises(ValueError, match="options.kernel to 'xla' or 'pallas'"):
        value_and_gradients(sigmoid, drawn.inputs(sigmoid, drawn.batch()), method="ring", kernel="interpret")


def test_what_the_kernel_does_not_cover_is_left_to_xla():
    plan = Plan("softmax", "teacher", True, "ring", 64, "float32", "interpret")
    assert not pallas_tiles.covers(plan, jnp.dtype("float32"))
    assert not pallas_tiles.covers(plan._replace(target="own"), jnp.dtype("float64"))
    arrays = drawn.inputs(infonce, drawn.batch(), without=("id", "alias", "zn"), teacher=True)
    found, expected = (value_and_gradients(infonce, arrays, method="ring", positives="teacher", kernel=k) for k in ("interpret", "xla"))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("loss", [infonce, sigmoid], ids=lambda loss: loss.__name__)
def test_padding_and_nan_are_treated_as_by_xla(loss):
    """A NaN in padding reaches nothing; elsewhere it is never hidden."""
    arrays = drawn.inputs(loss, drawn.batch(padded=3), without=("zp_weight",))
    arrays["zq"][5:] = arrays["zp"][5:] = arrays["zn"][5:] = np.nan
    found, expected = (value_and_gradients(loss, arrays, method="ring", block_size=3, kernel=k) for k in ("interpret", "xla"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), found, expected)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))
    arrays["zp"][2] = np.nan
    assert np.isnan(value_and_gradients(loss, arrays, method="ring", block_size=3, kernel="interpret")[0][2])


def test_an_unknown_kernel_names_the_key():
    with pytest.raises(ValueError, match="config.losses.<label>.options.kernel to one of: xla, pallas, interpret"):
        value_and_gradients(sigmoid, drawn.inputs(sigmoid, drawn.batch()), kernel="triton")
