"""Matryoshka against its definition, around a loss that the config names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from core.config import ConfigError
from losses.entries import apply_entry, entries
from tests.losses import drawn
from tests.losses.test_contracts import on
from tests.oracles import pair_losses

BATCH = drawn.batch(queries=8, width=6, padded=0)
ARRAYS = ("zq", "zp", "zn", "weight", "id", "logit_scale")


def entry(name="matryoshka", inner="infonce", inner_inputs=None, **options):
    """The bound loss of a config."""
    inputs = dict(zn="zn", weight="weight")
    if name == "matryoshka":
        around = dict(name=inner, inputs=inner_inputs or {}, options=options.pop("inner_options", {}))
        options = dict(loss=around, **options)
    made = ConfigDict(dict(matmul_dtype="float32", main=dict(name=name, inputs=inputs, weight=1.0, options=options)))
    return entries(made)[0]


def arrays_of(batch, *names):
    return {name: jnp.asarray(batch[name]) for name in names or ARRAYS}


def objective(bound, arrays, leaves):
    value, weight, _ = apply_entry(bound, arrays | leaves)
    return (value * weight).sum() / weight.sum(), value


def value_and_gradients(bound, arrays):
    leaves = {name: arrays[name] for name in drawn.trainable(arrays)}
    gradients, value = jax.jit(lambda leaves: jax.grad(lambda x: objective(bound, arrays, x), has_aux=True)(leaves))(leaves)
    return value, gradients


@settings(deadline=None, max_examples=8, derandomize=True)
@given(
    seed=st.integers(0, 10**6), queries=st.integers(1, 7), width=st.integers(1, 6), padded=st.integers(0, 2), hard=st.integers(0, 2),
    data=st.data(),
)  # fmt: skip
def test_value_is_the_sum_over_prefixes(seed, queries, width, padded, hard, data):
    dims = sorted(data.draw(st.sets(st.integers(1, width))) | {width})
    weights = tuple(data.draw(st.lists(st.floats(0.1, 3), min_size=len(dims), max_size=len(dims))))
    batch = drawn.batch(seed, queries, queries, width, hard, 3, min(padded, queries - 1), np.float64)
    cut = lambda name, dim: drawn.unit(batch[name][..., :dim])
    same = {name: batch[name] for name in ("weight", "id", "logit_scale")}
    expected = sum(
        factor * np.array(pair_losses.infonce(cut("zq", dim), cut("zp", dim), zn=cut("zn", dim), **same))
        for dim, factor in zip(dims, weights, strict=True)
    )
    with jax.enable_x64(True):
        bound = entry(dims=tuple(dims), weights=weights)
        value, weight, metrics = jax.jit(lambda arrays: apply_entry(bound, arrays))(arrays_of(batch))
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(weight, batch["weight"])
    assert sorted(metrics) == sorted(f"dim{dim}" for dim in dims)


def test_the_full_width_alone_is_the_inner_loss_bit_for_bit():
    found, expected = (value_and_gradients(bound, arrays_of(BATCH)) for bound in (entry(dims=(6,)), entry("infonce")))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_width_trains_the_values_below_it_and_no_others():
    _, gradients = value_and_gradients(entry(dims=(2, 4, 6), weights=(0.0, 1.0, 0.0)), arrays_of(BATCH))
    for name in ("zq", "zp", "zn"):
        np.testing.assert_array_equal(gradients[name][..., 4:], 0)
        assert np.abs(gradients[name][..., :4]).min() > 0


def test_order_within_a_block_means_nothing_and_across_blocks_it_does():
    bound = entry(dims=(2, 6))
    value = lambda order: apply_entry(bound, {n: a[..., jnp.array(order)] if n[0] == "z" else a for n, a in arrays_of(BATCH).items()})[0]
    kept = value([0, 1, 2, 3, 4, 5])
    np.testing.assert_allclose(value([1, 0, 4, 5, 3, 2]), kept, rtol=1e-5)
    assert np.abs(value([0, 2, 1, 3, 4, 5]) - kept).max() > 1e-2


@pytest.mark.parametrize("mesh", [(2, 1, 1), (2, 2, 2)], ids=str)
@pytest.mark.parametrize("method", ["dense", "ring"])
def test_value_and_gradients_ignore_the_mesh(mesh, method):
    arrays = drawn.batch(seed=3, queries=16)
    expected = value_and_gradients(entry(dims=(3, 6)), arrays_of(arrays))
    bound = entry(dims=(3, 6), inner_options=dict(method=method, block_size=3))
    auto, devices = (jax.sharding.AxisType.Auto,) * 3, jax.devices()[: np.prod(mesh)]
    with jax.set_mesh(mesh := jax.make_mesh(mesh, ("data", "fsdp", "tensor"), axis_types=auto, devices=devices)):
        found = value_and_gradients(bound, on(mesh, arrays_of(arrays)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), found, expected)  # float32 sums in another order


def test_padding_reaches_no_value_and_no_gradient():
    padded = drawn.batch(queries=8, padded=3)
    for name in ("zq", "zp", "zn"):
        padded[name][5:] = np.nan
    short = {name: array[:5] if np.ndim(array) else array for name, array in padded.items()}
    (value, gradients), (expected, short_gradients) = (value_and_gradients(entry(dims=(2, 6)), arrays_of(b)) for b in (padded, short))
    np.testing.assert_allclose(value, np.r_[expected, np.zeros(3)], rtol=1e-6)
    for name in ("zq", "zp", "zn"):
        np.testing.assert_array_equal(gradients[name][5:], 0)
        np.testing.assert_allclose(gradients[name][:5], short_gradients[name], rtol=1e-5, atol=1e-6)


def test_another_inner_loss_brings_its_own_arrays():
    bound = entry(inner="sigmoid", dims=(6,), inner_inputs=dict(logit_bias="offset"))
    assert bound.arrays["logit_bias"] == "offset" and "zq" in bound.arrays
    value, _, _ = apply_entry(bound, arrays_of(BATCH) | {"offset": jnp.float32(-3)})
    expected, _, _ = apply_entry(entry("sigmoid"), arrays_of(BATCH) | {"logit_bias": jnp.float32(-3)})
    np.testing.assert_array_equal(value, expected)
    with pytest.raises(ConfigError, match=r"config.losses.main.options.loss.inputs.logit_bias asks for 'offset'"):
        apply_entry(bound, arrays_of(BATCH))


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(inner="infonse"), r"config.losses.main.options.loss.name is 'infonse'.*Did you mean 'infonce'"),
        (dict(inner_options=dict(symetric=True)), r"config.losses.main.options.loss.options.symetric.*Did you mean 'symmetric'"),
        (dict(inner_inputs=dict(zq="z_text")), r"config.losses.main.options.loss.inputs.zq is not a key"),
    ],
)
def test_a_mistake_inside_names_its_key(change, said):
    with pytest.raises(ConfigError, match=said):
        entry(dims=(6,), **change)


@pytest.mark.parametrize("dims", [(), (2, 4), (6, 6), (0, 6), (6, 8)], ids=str)
def test_widths_that_cannot_be_are_refused(dims):
    with pytest.raises(ValueError, match=r"config.losses.<label>.options.dims.*with 6 among them"):
        apply_entry(entry(dims=dims), arrays_of(BATCH))


def test_as_many_weights_as_widths():
    with pytest.raises(ValueError, match="1 weights for 2 dims"):
        apply_entry(entry(dims=(2, 6), weights=(1.0,)), arrays_of(BATCH))
