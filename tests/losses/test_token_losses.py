"""Losses over tokens: their definition, and what every one of them must satisfy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from losses import LOSSES
from tests.losses.test_exchange import programs
from tests.oracles import token_losses as oracle

NAMES = ("masked_language", "bag_of_words")
WORDS = {"masked_language": "target", "bag_of_words": "own"}
EACH = pytest.mark.parametrize("name", NAMES)


def drawn(name, dtype=np.float32, rows=8, tokens=7, words=11, width=4):
    """Rows with repeated words, one without any token, the last one of weight 0."""
    rng = np.random.default_rng(0)
    asked = rng.integers(0, words, (rows, tokens)).astype(np.int32)
    asked[rng.random((rows, tokens)) < 0.4] = -1
    asked[2] = -1
    asked[0, :3] = asked[0, 0] = 3
    weight = rng.uniform(0.5, 2.0, rows)
    weight[-1] = 0
    arrays = dict(
        states=rng.normal(size=(rows, tokens, width)), table=rng.normal(size=(words, width)), bias=rng.normal(size=words), weight=weight
    )
    return {key: array.astype(dtype) for key, array in arrays.items()} | {WORDS[name]: asked}


@functools.cache
def compiled(name, **options):
    """Value, weight and gradients of the step's only mean."""

    def objective(leaves, fixed):
        value, weight, metrics = LOSSES[name](**leaves, **fixed, **options)
        return (value * weight).sum() / weight.sum(), (value, weight, metrics)

    return jax.jit(jax.grad(objective, has_aux=True))


def call(name, arrays, **options):
    split = [{key: a for key, a in arrays.items() if (key in ("states", "table", "bias")) == chosen} for chosen in (True, False)]
    return compiled(name, **options)(*split)


@EACH
def test_value_is_the_definition_whatever_the_blocks(name):
    arrays = drawn(name)
    expected = getattr(oracle, name)(**arrays)
    gradients, (value, weight, metrics) = call(name, arrays)
    np.testing.assert_allclose(value, expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(weight, expected[1], rtol=1e-6)
    if metrics:
        asked = (arrays["target"] >= 0) & (arrays["weight"] != 0)[:, None]
        best = (arrays["states"] @ arrays["table"].T + arrays["bias"]).argmax(2)
        np.testing.assert_array_equal(metrics["accuracy"], [(asked & (best == arrays["target"])).sum(), asked.sum()])
    found = call(name, arrays, block_size=3)  # the last block is ragged
    np.testing.assert_allclose(found[1][0], value, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found[0], gradients)


@EACH
def test_float64_stays_float64_and_the_gradient_is_that_of_the_definition(name):
    with jax.enable_x64(True):
        arrays = drawn(name, np.float64)
        gradients, (value, _, _) = call(name, arrays, matmul_dtype="bfloat16")
        assert {x.dtype for x in jax.tree.leaves((gradients, value))} == {jnp.dtype("float64")}
        gradients = jax.tree.map(np.asarray, gradients)
    mean = lambda arrays: (lambda value, weight: (value * weight).sum() / weight.sum())(*getattr(oracle, name)(**arrays))
    for key, place in (("states", (0, 1, 2)), ("table", (3, 1)), ("bias", (5,))):
        step = np.zeros_like(arrays[key])
        step[place] = 1e-5
        slope = (mean(arrays | {key: arrays[key] + step}) - mean(arrays | {key: arrays[key] - step})) / 2e-5
        np.testing.assert_allclose(gradients[key][place], slope, rtol=1e-5, atol=1e-9)


@EACH
def test_scores_of_minus_ten_thousand_are_still_above_what_is_hidden(name):
    """Released code hides by -1000, which most scores here are below."""
    arrays = drawn(name)
    arrays |= dict(states=-3000 * np.abs(arrays["states"]), table=np.abs(arrays["table"]))
    scores = arrays["states"] @ arrays["table"].T
    assert scores.min() < -1e4 and np.median(scores) < -5e3
    gradients, (value, _, _) = call(name, arrays)
    np.testing.assert_allclose(value, getattr(oracle, name)(**arrays)[0], rtol=1e-5, atol=1e-2)  # float32 spaces 1e4 by 0.001
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@EACH
def test_scores_of_all_tokens_are_never_in_memory_at_once(name):
    arrays = drawn(name)
    split = [{key: a for key, a in arrays.items() if (key in ("states", "table", "bias")) == chosen} for chosen in (True, False)]

    def largest(**options):
        traced = jax.make_jaxpr(compiled(name, **options))(*split)
        made = [v.aval for program in programs(traced.jaxpr) for e in program.eqns for v in e.outvars]
        return max(a.size for a in made if jnp.issubdtype(a.dtype, jnp.floating))

    scores = arrays["states"][..., 0].size * len(arrays["table"])
    assert largest() >= scores > largest(block_size=3)


@EACH
def test_padding_is_never_seen_and_what_is_asked_is_never_hidden(name):
    arrays = drawn(name)
    gradients, (value, _, _) = call(name, arrays)
    arrays["states"] = np.where((arrays[WORDS[name]] >= 0)[..., None], arrays["states"], np.nan)
    arrays["states"][-1] = np.nan
    found, (same, _, _) = call(name, arrays)
    jax.tree.map(np.testing.assert_array_equal, (found, same), (gradients, value))
    assert value[2] == 0 and value[-1] == 0 and not found["states"][2].any()
    arrays["states"][0, 0] = np.nan
    assert np.isnan(call(name, arrays)[1][0][0])


@EACH
def test_a_mesh_changes_nothing(name):
    arrays = drawn(name)
    expected = call(name, arrays)
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    whole = lambda key: key in ("table", "bias")
    spec = {key: PartitionSpec() if whole(key) else PartitionSpec(("data", "fsdp")) for key in arrays}
    with jax.set_mesh(mesh):
        found = call(name, {key: jax.device_put(array, NamedSharding(mesh, spec[key])) for key, array in arrays.items()})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), found, expected)


def test_equal_scores_cost_the_log_of_the_vocabulary():
    target = jnp.array([[1, -1, 1, 4]])
    flat = dict(states=jnp.zeros((1, 4, 2)), table=jnp.ones((5, 2)))
    value, weight, metrics = jax.jit(LOSSES["masked_language"])(**flat, target=target)
    np.testing.assert_allclose((value, weight), [[np.log(5)], [3]], rtol=1e-6)
    assert metrics["accuracy"][1] == 3
    # Two distinct words among three tokens: weights 1/3 each, below one in sum.
    np.testing.assert_allclose(jax.jit(LOSSES["bag_of_words"])(**flat, own=target)[0], 2 / 3 * np.log(5), rtol=1e-6)


@EACH
def test_options_that_cannot_be_name_the_key(name):
    arrays = jax.tree.map(jnp.asarray, drawn(name))
    with pytest.raises(ValueError, match=r"config\.losses\.<label>\.options\.block_size"):
        LOSSES[name](**arrays, block_size=0)
    with pytest.raises(ValueError, match=r"config\.losses\.matmul_dtype"):
        LOSSES[name](**arrays, matmul_dtype="guess")
