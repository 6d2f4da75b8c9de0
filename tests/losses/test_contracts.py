"""What every entry of LOSSES must satisfy."""

import functools
import inspect
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import losses
from core.config import options_of
from losses import LOSSES
from losses.blockwise import METHODS
from tests.losses import drawn

MESHES = [(1, 1, 1), (2, 1, 1), (1, 4, 2), (4, 2, 1), (2, 2, 2)]
# Each loss with its own options, and in tiles where it offers them; the tiles do not divide the batches below. Those around another loss,
# and those of something else than pairs of embeddings, have tests of their own.
PAIRED = [name for name in LOSSES if {"zq", "zp"} <= set(inspect.signature(LOSSES[name]).parameters)]
DIRECT = sorted(name for name in PAIRED if "loss" not in options_of(LOSSES[name]))
OFFERING = [name for name in DIRECT if "method" in options_of(LOSSES[name])]
TILED = [(name, dict(method=m, block_size=3)) for name in OFFERING for m in METHODS if m != "dense"]
VARIANTS = [(name, {}) for name in DIRECT] + TILED


def call(loss, arrays, **options):
    return _calls(loss, _chosen(loss, options))(**arrays)


def value_and_gradients(loss, arrays, **options):
    """The loss of each row, and the gradients of the step's only mean over the batch."""
    names = drawn.trainable(arrays)
    chosen, others = ({k: v for k, v in arrays.items() if (k in names) == choice} for choice in (True, False))
    gradients, value = _gradients(loss, _chosen(loss, options))(chosen, others)
    return value, gradients


def _chosen(loss, options):
    """Options that are not the loss's own choice; a key of what is compiled."""
    return frozenset((name, value) for name, value in options.items() if value != options_of(loss)[name])


@functools.cache  # one function to a choice of options: arrays of the same shapes are compiled once, whatever test brings them
def _calls(loss, options):
    return jax.jit(functools.partial(loss, **dict(options)))


@functools.cache
def _gradients(loss, options):
    def objective(leaves, fixed):
        value, weight, _ = loss(**leaves, **fixed, **dict(options))
        return (value * weight).sum() / weight.sum(), value

    return jax.jit(jax.grad(objective, has_aux=True))


def on(mesh, arrays):
    """Arrays on a mesh: the batch split over data and fsdp."""
    spec = {name: PartitionSpec(("data", "fsdp")) if np.ndim(array) else PartitionSpec() for name, array in arrays.items()}
    return {name: jax.device_put(array, NamedSharding(mesh, spec[name])) for name, array in arrays.items()}


def embeddings(arrays):
    """Those of a loss that it trains."""
    return [name for name in ("zq", "zp", "zn") if name in arrays]


def test_table_and_folder_agree():
    """Every file is a loss of its own name, in the table, or one of the helpers named here."""
    helpers = "__init__ blockwise entries exchange pallas_tiles positives schedules similarity tiles vocabulary".split()
    files = {p.stem for p in pathlib.Path(losses.__file__).parent.glob("*.py")}
    assert files - set(helpers) == set(LOSSES) == {loss.__name__ for loss in LOSSES.values()}


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_options_have_defaults(name):
    for parameter in inspect.signature(LOSSES[name]).parameters.values():
        assert parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if parameter.kind is parameter.KEYWORD_ONLY:
            assert parameter.default is not parameter.empty


MESHED = [(name, {}, mesh) for name in DIRECT for mesh in MESHES[-2:]] + [(*variant, mesh) for variant in TILED for mesh in MESHES]


@pytest.mark.parametrize("name, options, mesh", MESHED, ids=str)
def test_value_and_gradients_ignore_the_mesh(name, options, mesh):
    loss = LOSSES[name]
    arrays = drawn.inputs(loss, drawn.batch(seed=3, queries=16, hard=2))
    expected = value_and_gradients(loss, arrays)
    auto, devices = (jax.sharding.AxisType.Auto,) * 3, jax.devices()[: np.prod(mesh)]
    mesh = jax.make_mesh(mesh, ("data", "fsdp", "tensor"), axis_types=auto, devices=devices)
    with jax.set_mesh(mesh):
        found = value_and_gradients(loss, on(mesh, arrays), **options)
    # float32 sums of 16 to 48 terms in another order
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), found, expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name, options", VARIANTS, ids=str)
def test_gradients_are_finite_where_embeddings_collapse(name, options, dtype):
    arrays = drawn.inputs(LOSSES[name], drawn.batch(padded=1))
    same = np.full_like(arrays["zq"][0], arrays["zq"].shape[1] ** -0.5)
    for key in embeddings(arrays):
        arrays[key] = np.broadcast_to(same, arrays[key].shape)
    arrays |= {"logit_scale": np.float32(100)} if "logit_scale" in arrays else {}
    value, gradients = value_and_gradients(LOSSES[name], arrays, matmul_dtype=dtype, **options)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((value, gradients)))


@pytest.mark.parametrize("name, options", VARIANTS, ids=str)
def test_padding_changes_nothing(name, options):
    """Rows of weight 0 at the end, or none: the same losses, and no gradient for or from what they hold, NaN included."""
    loss = LOSSES[name]
    padded = drawn.inputs(loss, drawn.batch(queries=8, padded=3))
    for key in embeddings(padded):
        padded[key][5:] = np.nan
    short = {key: array[:5] if np.ndim(array) else array for key, array in padded.items()}
    _, weight, _ = call(loss, padded, **options)
    np.testing.assert_array_equal(weight, np.r_[short["weight"], np.zeros(3)])
    value, gradients = value_and_gradients(loss, padded, **options)
    expected, short_gradients = value_and_gradients(loss, short, **options)
    np.testing.assert_allclose(value, np.r_[expected, np.zeros(3)], rtol=1e-6)
    for key, gradient in gradients.items():
        expected = short_gradients[key]
        if gradient.ndim:
            np.testing.assert_array_equal(gradient[5:], 0)
            gradient = gradient[:5]
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name, options", VARIANTS, ids=str)
def test_permuting_pairs_permutes_losses(name, options):
    arrays = drawn.inputs(LOSSES[name], drawn.batch(padded=0))
    order = np.random.default_rng(1).permutation(8)
    moved = {key: array[order] if np.ndim(array) else array for key, array in arrays.items()}
    value, _, _ = call(LOSSES[name], arrays, **options)
    permuted, _, _ = call(LOSSES[name], moved, **options)
    np.testing.assert_allclose(permuted, value[order], rtol=1e-5)


@pytest.mark.parametrize("name, options", VARIANTS, ids=str)
def test_a_nan_embedding_is_never_hidden(name, options):
    arrays = drawn.inputs(LOSSES[name], drawn.batch(padded=0))
    arrays["zp"][2] = np.nan
    value, _, _ = call(LOSSES[name], arrays, **options)
    assert np.isnan(value[2])


@pytest.mark.parametrize("name, options", VARIANTS, ids=str)
def test_float64_stays_float64(name, options):
    with jax.enable_x64(True):
        arrays = drawn.inputs(LOSSES[name], drawn.batch(dtype=np.float64))
        value, gradients = value_and_gradients(LOSSES[name], arrays, matmul_dtype="bfloat16", **options)
        assert {x.dtype for x in jax.tree.leaves((value, gradients))} == {jnp.dtype("float64")}


@pytest.mark.parametrize("name", DIRECT)
def test_fewer_passages_than_queries_are_refused(name):
    arrays = drawn.inputs(LOSSES[name], drawn.batch(queries=4, passages=3), without=drawn.OPTIONAL)
    with pytest.raises(ValueError, match="config.losses.<label>.inputs.zp"):
        call(LOSSES[name], arrays)


@pytest.mark.parametrize(
    "name, option", [(name, option) for name in DIRECT for option in ("matmul_dtype", "negatives") if option in options_of(LOSSES[name])]
)
def test_an_unknown_choice_names_the_key(name, option):
    arrays = drawn.inputs(LOSSES[name], drawn.batch())
    with pytest.raises(ValueError, match=rf"config\.losses\..*{option}"):
        call(LOSSES[name], arrays, **{option: "guess"})
