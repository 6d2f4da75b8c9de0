"""Losses over layers and widths, 2DMSE and Starbucks, against their definitions; and what follows exactly from them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from losses.entries import apply_entry, entries
from losses.infonce import infonce
from losses.matryoshka_2d import matryoshka_2d
from losses.starbucks import starbucks
from tests.losses import drawn
from tests.losses.test_contracts import on
from tests.oracles import layered_losses, pair_losses

DEPTH, WIDTH = 3, 6
STATES = ("zq_layers", "zp_layers", "zn_layers")
PLAIN = ("zq", "zp", "zn", "logit_scale", "id", "weight")
INNER = dict(name="infonce", inputs=dict(id="id"), options=dict(symmetric=False))
CASES = [("matryoshka_2d", dict(dims=(2, 6))), ("starbucks", dict(sizes=((1, 2), (3, 6))))]


def batch(seed=0, queries=8, extra=0, padded=0, dtype=np.float32):
    """A batch of pairs and a hard negative of each, with the states of all layers: the last one at unit length is the embedding."""
    arrays, rng = drawn.batch(seed, queries, queries + extra, WIDTH, 1, 3, padded, dtype), np.random.default_rng(seed)
    for name in ("zq", "zp", "zn"):
        states = rng.normal(size=(DEPTH, *arrays[name].shape)) * rng.uniform(0.5, 2)
        arrays |= {f"{name}_layers": states.astype(dtype), name: drawn.unit(states[-1]).astype(dtype)}
    arrays = {name: jnp.asarray(array) for name, array in arrays.items() if name in (*PLAIN, *STATES)}
    return arrays | {"key": jax.random.key(seed)}


def bound(name, loss=INNER, **options):
    inputs = dict(zn="zn", zn_layers="zn_layers", weight="weight")
    made = ConfigDict(dict(matmul_dtype="float32", main=dict(name=name, inputs=inputs, weight=1.0, options=dict(loss=loss) | options)))
    return entries(made)[0]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _value(name, options, arrays):
    value, _, metrics = apply_entry(bound(name, **dict(options)), arrays)
    return value, metrics


@functools.partial(jax.jit, static_argnums=(0, 1))
def _gradients(name, options, arrays):
    def objective(leaves):
        value, weight, _ = apply_entry(bound(name, **dict(options)), arrays | leaves)
        return (value * weight).sum() / weight.sum(), value

    gradients, value = jax.grad(objective, has_aux=True)({k: a for k, a in arrays.items() if k[0] == "z" or k == "logit_scale"})
    return value, gradients


def value_of(name, arrays, **options):
    """The loss of each query, and its parts; compiled once for equal options and shapes."""
    return _value(name, tuple(sorted(options.items())), arrays)


def value_and_gradients(name, arrays, **options):
    return _gradients(name, tuple(sorted(options.items())), arrays)


def naive(arrays):
    """What the oracles take: the inner loss by definition, states by side, and the rest."""
    layers = {name.removesuffix("_layers"): np.asarray(arrays[name], np.float64) for name in STATES}
    return (
        functools.partial(pair_losses.infonce, symmetric=False),
        layers,
        {n: np.asarray(arrays[n]) for n in ("id", "weight", "logit_scale")},
    )


@pytest.fixture(scope="module")
def plain():
    """The inner loss alone on the first batch."""
    return jax.jit(functools.partial(infonce, symmetric=False))(**{name: batch()[name] for name in PLAIN})[0]


@pytest.mark.parametrize("seed", range(3))
def test_all_layers_and_widths_are_the_definition(seed):
    with jax.enable_x64(True):
        arrays = batch(seed, queries=4, extra=1, padded=1, dtype=np.float64)
        base, layers, rest = naive(arrays)
        options = dict(dims=(2, 6), draw=False, layer_weights="uniform", temperature=0.3, kl_weight=0.5)
        found, _ = value_of("matryoshka_2d", arrays, **options)
        weights = dict(layer_weight=lambda n: 1.0, kl_weight=lambda n: 0.5 * np.log(2 + n))
        expected = layered_losses.matryoshka_2d(base, layers, (1, 2), (2, 6), **weights, temperature=0.3, **rest)
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)


def test_what_is_drawn_is_the_definition_for_one_layer_and_one_width():
    with jax.enable_x64(True):
        arrays = batch(3, queries=4, padded=1, dtype=np.float64)
        base, layers, rest = naive(arrays)
        weights = dict(layer_weight=lambda n: 1 / n, kl_weight=lambda n: np.log(2 + n), temperature=1.0)
        of = lambda n, dim: layered_losses.matryoshka_2d(base, layers, (n,), (6, dim), **weights, **rest)
        possible, seen = {(n, dim): of(n, dim) for n in (1, 2) for dim in (2, 6)}, set()
        for seed in range(20):
            value, _ = value_of("matryoshka_2d", arrays | {"key": jax.random.key(seed)}, dims=(2, 6))
            (size,) = (size for size, expected in possible.items() if np.allclose(value, expected, rtol=1e-11))
            seen.add(size)
    assert seen == set(possible)  # every layer but the last, every width


def test_the_full_width_drawn_counts_the_last_layer_twice(plain):
    arrays = batch()
    _, parts = value_of("matryoshka_2d", arrays, dims=(6,))
    np.testing.assert_allclose(parts["last"][0], 2 * (plain * arrays["weight"]).sum(), rtol=1e-6)


def test_without_a_key_nothing_is_drawn(plain):
    arrays = {name: array for name, array in batch().items() if name != "key"}
    np.testing.assert_array_equal(value_of("matryoshka_2d", arrays, dims=(2, 6))[0], plain)


def test_equal_layers_do_not_diverge_and_their_length_means_something():
    """A longer inner vector diverges, while the loss on it is what it was."""
    same = batch() | {name: jnp.broadcast_to(batch()[name][-1:], batch()[name].shape) for name in STATES}
    longer = same | {name: same[name].at[:-1].multiply(3) for name in STATES}
    parts, of_longer = (value_of("matryoshka_2d", arrays, dims=(6,))[1] for arrays in (same, longer))
    assert abs(parts["kl"][0]) < 1e-5 and of_longer["kl"][0] > 1e-2
    np.testing.assert_allclose(of_longer["inner"][0], parts["inner"][0], rtol=1e-5)


@pytest.mark.parametrize("stop", [False, True])
def test_the_teacher_gets_a_gradient_unless_it_is_stopped(stop):
    _, gradients = value_and_gradients("matryoshka_2d", batch(), dims=(2, 6), **dict(stop_teacher=True) if stop else {})
    of_last = np.abs(gradients["zq_layers"][-1])
    assert (of_last == 0).all() if stop else of_last.min() > 0
    assert sorted(np.abs(gradients["zq_layers"][:-1]).max((1, 2)) > 0) == [False, True]  # of the layer that was drawn


@pytest.mark.parametrize("kind", ["scores", "features"])
def test_fixed_sizes_are_the_definition(kind):
    sizes = ((1, 2), (2, 6), (3, 4), (3, 6))
    with jax.enable_x64(True):
        for seed in range(2):
            arrays = batch(seed, queries=4, extra=1, padded=1, dtype=np.float64)
            base, layers, rest = naive(arrays)
            found, _ = value_of("starbucks", arrays, sizes=sizes, kl=kind, kl_weight=0.3)
            expected = layered_losses.starbucks(base, layers, sizes, kind=kind, kl_weight=0.3, **rest)
            np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)


def test_the_whole_alone_is_the_inner_loss_bit_for_bit(plain):
    np.testing.assert_array_equal(value_of("starbucks", batch(), sizes=((3, 6),))[0], plain)


def test_scores_teach_and_learn_nothing():
    """The divergence adds nothing to the gradient of the whole model's vectors, and something to that of a smaller one's."""
    (name, options), arrays = CASES[1], batch()
    (_, with_kl), (_, without) = (value_and_gradients(name, arrays, **options | more) for more in ({}, dict(kl_weight=0.0)))
    for side in ("zq", "zp", "zn"):
        np.testing.assert_allclose(with_kl[side], without[side], rtol=1e-5, atol=1e-7)
        assert np.abs(with_kl[f"{side}_layers"][0] - without[f"{side}_layers"][0]).max() > 1e-3


def test_features_teach_and_learn():
    """The states of the last layer have no part in the losses of single sizes; here their gradient is the divergence's alone."""
    sizes, kl = ((1, 2), (3, 6)), dict(kind="features", logit_scale=1.0)
    with jax.enable_x64(True):
        arrays = batch(queries=4, padded=1, dtype=np.float64)
        _, gradients = value_and_gradients("starbucks", arrays, sizes=sizes, kl="features", kl_weight=0.3)
        base, layers, rest = naive(arrays)
        weight = rest["weight"]

        def divergence(layers):
            of = lambda kl_weight: layered_losses.starbucks(base, layers, sizes, kl_weight=kl_weight, **rest | kl)
            return ((of(0.3) - of(0.0)) * weight).sum() / weight.sum()

        for side, states in layers.items():
            turn = np.zeros_like(states)
            turn[-1] = np.random.default_rng(1).normal(size=states[-1].shape)
            up, down = (divergence(layers | {side: states + step * turn}) for step in (1e-5, -1e-5))
            np.testing.assert_allclose((gradients[f"{side}_layers"] * turn).sum(), (up - down) / 2e-5, rtol=1e-6)


@pytest.mark.many_processes  # compiles four gradients
def test_the_gradient_is_the_sum_of_those_of_single_sizes():
    arrays, sizes = batch(), ((1, 2), (2, 4))
    of = lambda *chosen: value_and_gradients("starbucks", arrays, sizes=(*chosen, (3, 6)))[1]
    expected = jax.tree.map(lambda a, b, c: a + b - c, of(sizes[0]), of(sizes[1]), of())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), of(*sizes), expected)


@pytest.mark.parametrize("name, options", CASES, ids=str)
def test_value_and_gradients_ignore_the_mesh(name, options):
    arrays, axes = batch(), ("data", "fsdp", "tensor")
    expected = value_and_gradients(name, arrays, **options)
    with jax.set_mesh(mesh := jax.make_mesh((2, 2, 2), axes, axis_types=(jax.sharding.AxisType.Auto,) * 3)):
        layered = jax.sharding.NamedSharding(mesh, jax.P(None, ("data", "fsdp")))
        placed = on(mesh, {n: a for n, a in arrays.items() if n not in (*STATES, "key")}) | {"key": arrays["key"]}
        found = value_and_gradients(name, placed | {n: jax.device_put(arrays[n], layered) for n in STATES}, **options)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), found, expected)  # sums in another order


@pytest.mark.parametrize("name, options", CASES, ids=str)
def test_padding_reaches_no_value_and_no_gradient(name, options):
    arrays = batch(padded=2)
    rows = lambda n, a, cut: a[:, cut] if n in STATES else a[cut] if a.ndim else a
    spoil = lambda n, a: (a.at[:, 6:] if n in STATES else a.at[6:]).set(jnp.nan)
    spoilt = {n: spoil(n, a) if n[0] == "z" else a for n, a in arrays.items()}
    short = {n: rows(n, a, slice(6)) for n, a in arrays.items()}
    (value, gradients), (expected, of_short) = (value_and_gradients(name, a, **options) for a in (spoilt, short))
    np.testing.assert_allclose(value, np.r_[expected, 0, 0], rtol=1e-5)
    for n, gradient in gradients.items():
        np.testing.assert_allclose(rows(n, gradient, slice(6)), of_short[n], rtol=1e-4, atol=1e-6)
        if n[0] == "z":
            np.testing.assert_array_equal(rows(n, gradient, slice(6, None)), 0)


@pytest.mark.parametrize("name, options", CASES, ids=str)
def test_gradients_are_finite_where_embeddings_collapse(name, options):
    arrays = batch() | {"logit_scale": jnp.float32(100)}
    arrays |= {n: jnp.full_like(a, 1.0 if n in STATES else WIDTH**-0.5) for n, a in arrays.items() if n[0] == "z"}
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(value_and_gradients(name, arrays, **options)))


def test_an_inner_loss_has_what_an_outer_one_does_not_hand_on():
    """An inner loss that draws gets the key of the step, and its own scale, though the outer one has these too."""
    entry = bound("starbucks", loss=dict(name="mochi", inputs={}, options=dict(hardest=4, mixed=4)), sizes=((3, 6),))
    assert {"key", "logit_scale", "id"} <= set(entry.inner["loss"].inputs) and not {"zq", "zn", "weight"} & set(entry.inner["loss"].inputs)


@pytest.mark.parametrize(
    "loss, change, said",
    [
        (matryoshka_2d, dict(dims=(2, 4)), "config.losses.<label>.options.dims .*with 6 among them"),
        (matryoshka_2d, dict(layer_weights="half"), "options.layer_weights to one of: inverse, uniform"),
        (matryoshka_2d, dict(kl_weights="half"), "options.kl_weights to one of: log, uniform"),
        (matryoshka_2d, dict(zn=np.ones((8, 1, 6))), "config.losses.<label>.inputs.zn and .zn_layers"),
        (matryoshka_2d, dict(zp_layers=np.ones((2, 8, 6))), "different depths, {'zq': 3, 'zp': 2}"),
        (matryoshka_2d, {n: np.ones((1, 8, 6)) for n in STATES[:2]}, "options.layers to 2 or more"),
        (starbucks, dict(sizes=((1, 2),)), r"config.losses.<label>.options.sizes to distinct pairs .* with \(3, 6\) among them"),
        (starbucks, dict(sizes=((4, 2), (3, 6))), "options.sizes"),
        (starbucks, dict(sizes=((3, 6),), kl="logits"), "options.kl to one of: scores, features"),
        (starbucks, dict(sizes=((3, 6),)), "no logit_scale"),
    ],
)
def test_what_cannot_be_is_refused(loss, change, said):
    arrays = {n: a for n, a in batch().items() if n in ("zq", "zp", *STATES[:2])}
    change = {n: jnp.asarray(a, jnp.float32) if n[0] == "z" else a for n, a in change.items()}
    with pytest.raises(ValueError, match=said):
        loss(**arrays | change)
