"""Weighted SimCLR, MI-Mix and geodesic mixup against their definitions, and what follows exactly from them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses.infonce import infonce
from losses.m2_mix import arcsine, geodesic, m2_mix
from losses.mi_mix import mi_mix
from losses.schedules import SCHEDULES
from losses.simclr import simclr
from tests.losses import drawn
from tests.losses.test_contracts import on
from tests.oracles import mixing

BATCH = drawn.batch(queries=6, padded=0)
Z = ("zq", "zp", "logit_scale")


def take(batch, *names):
    return {name: jnp.asarray(batch[name]) for name in names or Z}


@functools.partial(jax.jit, static_argnums=(0,), static_argnames=("weighted", "temperature"))
def value(loss, arrays, **options):
    return loss(**arrays, **options)[0]


def check_gradients(loss, definition, arrays, **fixed):
    """Those of the sum over rows, along a random turn of each array, are central differences of the definition."""
    rng, total = np.random.default_rng(1), lambda leaves: loss(leaves)[0].sum()
    for name, gradient in jax.jit(jax.grad(total))({name: jnp.asarray(array) for name, array in arrays.items()}).items():
        turn = rng.normal(size=gradient.shape)
        if turn.ndim:
            turn -= (turn * arrays[name]).sum(1, keepdims=True) * arrays[name]  # the length of an embedding stays 1
        up, down = ({name: arrays[name] + step * turn} for step in (1e-5, -1e-5))
        slope = (sum(definition(**arrays | up, **fixed)) - sum(definition(**arrays | down, **fixed))) / 2e-5
        np.testing.assert_allclose((gradient * turn).sum(), slope, rtol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_simclr_is_the_definition(weighted):
    with jax.enable_x64(True):
        batch = drawn.batch(queries=6, padded=0, dtype=np.float64)
        expected = mixing.simclr(batch["zq"], batch["zp"], float(batch["logit_scale"]), weighted)
        np.testing.assert_allclose(value(simclr, take(batch), weighted=weighted), expected, rtol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_mi_mix_is_the_definition(weighted):
    with jax.enable_x64(True):
        batch = drawn.batch(queries=6, padded=0, dtype=np.float64)
        rng = np.random.default_rng(0)
        share, partner = rng.uniform(0.5, 1, 6), np.array([1, 2, 0, 3, 5, 4], np.int32)
        expected = mixing.mi_mix(batch["zq"], batch["zp"], float(batch["logit_scale"]), share, partner, weighted)
        found = value(mi_mix, take(batch) | dict(share=jnp.asarray(share), partner=jnp.asarray(partner)), weighted=weighted)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_partner_competes_whatever_its_label_unless_it_is_padding(weighted):
    with jax.enable_x64(True):
        batch = drawn.batch(queries=7, passages=9, padded=2, dtype=np.float64)
        batch |= dict(id=np.array([0, 0, 1, 2, 3, 0, 4], np.int32), alias=np.array([0, 1, 2, 1, 4, 1, 6], np.int32))
        share, partner = np.linspace(0.5, 1, 7), np.array([1, 3, 5, 2, 0, 4, 6], np.int32)  # by id, by alias, padding; padding by others
        labels, weight = (batch["id"], batch["alias"]), batch["weight"]
        expected = mixing.mi_mix(batch["zq"], batch["zp"], float(batch["logit_scale"]), share, partner, weighted, labels, weight)
        arrays = take(batch, *Z, "id", "alias", "weight") | dict(share=jnp.asarray(share), partner=jnp.asarray(partner))
        found, rows, metrics = jax.jit(functools.partial(mi_mix, weighted=weighted))(**arrays)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        kept = np.array([1, 1, 0, 1, 1, 0, 0])
        np.testing.assert_array_equal(found > 0, kept)
        np.testing.assert_array_equal(rows, weight * kept)
        np.testing.assert_allclose(metrics["share"], [(share * rows).sum(), rows.sum()], rtol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_row_that_is_its_partner_pays_for_its_own_share_even_in_a_batch_of_one_label(weighted):
    """The partner's passage is then the only candidate beside its own; without it the loss would be -25."""
    eye, partner = jnp.eye(4), jnp.array([1, 2, 3, 0])
    arrays = dict(zq=eye[partner], zp=eye, logit_scale=jnp.float32(50), share=jnp.full(4, 0.5), partner=partner, id=jnp.zeros(4, int))
    np.testing.assert_allclose(value(mi_mix, arrays, weighted=weighted), 25, rtol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_weights_of_negatives_have_a_gradient(weighted):
    with jax.enable_x64(True):
        batch = drawn.batch(queries=6, padded=0, dtype=np.float64)
        arrays, mixed = (
            {name: batch[name] for name in Z},
            dict(share=np.linspace(0.5, 1, 6), partner=np.array([1, 2, 0, 3, 5, 4], np.int32)),
        )
        check_gradients(lambda leaves: simclr(**leaves, weighted=weighted), mixing.simclr, arrays, weighted=weighted)
        given = jax.tree.map(jnp.asarray, mixed)
        check_gradients(lambda leaves: mi_mix(**leaves, **given, weighted=weighted), mixing.mi_mix, arrays, weighted=weighted, **mixed)


def test_mixtures_of_a_pair_have_a_gradient():
    with jax.enable_x64(True):
        batch, key = drawn.batch(queries=6, padded=0, dtype=np.float64), jax.random.key(3)
        of_unit = lambda zq, zp, **fixed: mixing.m2_mix(drawn.unit(zq), drawn.unit(zp), **fixed)  # a turned one is longer by 1e-10
        share = float(arcsine(key, jnp.float64))
        arrays = {name: batch[name] for name in ("zq", "zp")}
        check_gradients(lambda leaves: m2_mix(**leaves, key=key), of_unit, arrays, share=share, temperature=0.07)


@pytest.mark.parametrize("name", ["m2_mix", "mi_mix"])
def test_on_a_mesh_the_batch_has_one_share_and_every_row_its_partner(name):
    batch = drawn.batch(queries=16, padded=2)
    drawn_alike = dict(m2_mix=dict(key=jax.random.key(3)), mi_mix=dict(logit_scale=batch["logit_scale"]))[name]
    rows = (
        dict(share=np.linspace(0.5, 1, 16, dtype=np.float32), partner=np.roll(np.arange(16, dtype=np.int32), 5)) if name == "mi_mix" else {}
    )
    split = {key: batch[key] for key in ("zq", "zp", "id", "weight")} | rows
    run = jax.jit(dict(m2_mix=m2_mix, mi_mix=mi_mix)[name])
    expected = run(**split, **drawn_alike)
    with jax.set_mesh(mesh := jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)):
        found = run(**on(mesh, split), **drawn_alike)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), found, expected)  # sums in another order


def test_m2_mix_is_the_definition():
    with jax.enable_x64(True):
        batch, key = drawn.batch(queries=6, padded=0, dtype=np.float64), jax.random.key(3)
        share = float(arcsine(key, jnp.float64))
        expected = mixing.m2_mix(batch["zq"], batch["zp"], share, 0.07)
        found = value(m2_mix, take(batch, "zq", "zp") | dict(key=key))
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        assert np.abs(value(m2_mix, take(batch, "zq", "zp")) - found).max() > 1e-3  # without a key: a half


def test_weights_never_lower_the_loss_and_are_one_where_negatives_are_equal():
    assert (value(simclr, take(BATCH), weighted=True) > value(simclr, take(BATCH), weighted=False)).all()
    eye = jnp.eye(4, 8)
    far = dict(zq=eye, zp=eye, logit_scale=jnp.float32(3))  # all negatives at a cosine of 0
    np.testing.assert_allclose(value(simclr, far, weighted=True), value(simclr, far, weighted=False), rtol=1e-6)
    np.testing.assert_allclose(value(simclr, far, weighted=True), np.log(1 + 6 * np.exp(-3.0)), rtol=1e-5)


def test_weights_at_a_temperature_of_a_hundredth_are_finite():
    cold = take(BATCH) | dict(logit_scale=jnp.float32(100))
    total = lambda zq: simclr(**cold | dict(zq=zq), weighted=True)[0].sum()
    found, gradient = jax.jit(jax.value_and_grad(total))(cold["zq"])
    assert np.isfinite(found) and np.isfinite(gradient).all()


def test_a_temperature_takes_the_place_of_the_scale():
    fixed = value(simclr, take(BATCH, "zq", "zp"), temperature=0.2)
    np.testing.assert_allclose(fixed, value(simclr, take(BATCH) | dict(logit_scale=jnp.float32(5))), rtol=1e-5)
    with pytest.raises(ValueError, match="set config.losses.<label>.options.temperature"):
        value(simclr, take(BATCH, "zq", "zp"))


def test_unmixed_rows_leave_one_direction():
    arrays = take(BATCH)
    np.testing.assert_allclose(
        value(mi_mix, arrays, weighted=False), jax.jit(functools.partial(infonce, symmetric=False))(**arrays)[0], rtol=1e-5
    )
    alone = value(mi_mix, arrays | dict(share=jnp.ones(6), partner=jnp.array([1, 0, 3, 2, 5, 4])))
    np.testing.assert_allclose(alone, value(mi_mix, arrays), rtol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_the_geodesic_has_length_one_and_ends_at_its_ends(share):
    u, v = (jnp.asarray(BATCH[name]) for name in ("zq", "zp"))
    point = geodesic(u, v, jnp.float32(share))
    np.testing.assert_allclose(jnp.linalg.norm(point, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(point, geodesic(v, u, jnp.float32(1 - share)), atol=1e-5)
    straight = drawn.unit(share * u + (1 - share) * v)
    assert np.allclose(point, straight, atol=1e-5) == (share != 0.3)


def test_nearly_equal_and_opposite_sides_have_finite_mixtures_and_gradients():
    u = jnp.asarray(BATCH["zq"])
    mixed = jax.jit(lambda u, v: geodesic(u, v, jnp.float32(0.3)))
    sloped = jax.jit(jax.grad(lambda u, v: mixed(u, v).sum()))
    for v in (u, -u, u + 1e-7):
        point, gradient = mixed(u, v), sloped(u, v)
        assert np.isfinite(point).all() and np.isfinite(gradient).all()
    np.testing.assert_allclose(mixed(u, u), u, atol=1e-5)


def test_at_a_share_of_zero_one_side_is_infonce(monkeypatch):
    """The mixtures are the passages; the other side meets its own passages in place of queries."""
    monkeypatch.setattr("losses.m2_mix.arcsine", lambda key, dtype: jnp.zeros((), dtype))
    arrays = take(BATCH, "zq", "zp")
    found = m2_mix(**arrays, key=jax.random.key(0), temperature=0.5)[0]
    queries = infonce(**arrays, logit_scale=jnp.float32(2), symmetric=False)[0]
    own = jnp.where(jnp.eye(6, dtype=bool), (arrays["zq"] * arrays["zp"]).sum(1)[:, None], arrays["zp"] @ arrays["zp"].T)
    passages = jax.nn.logsumexp(2 * own, axis=1) - 2 * jnp.diagonal(own)
    np.testing.assert_allclose(found, queries + passages, rtol=1e-5)


def test_the_share_of_a_batch_is_beta_a_half():
    shares = np.asarray(jax.vmap(lambda key: arcsine(key, jnp.float32))(jax.random.split(jax.random.key(0), 4000)))
    assert 0 <= shares.min() and shares.max() <= 1
    # Mean 1/2 and variance 1/8; four standard errors of 4000 draws.
    assert abs(shares.mean() - 0.5) < 4 * np.sqrt(1 / 8 / 4000) and abs(shares.var() - 1 / 8) < 0.01


def test_schedules_go_where_they_say():
    at = lambda name, steps, **options: [float(SCHEDULES[name](jnp.asarray(t), **options)) for t in steps]
    assert at("linear", (0, 5, 10, 99), start=1.0, end=3.0, over_steps=10) == [1, 2, 3, 3]
    np.testing.assert_allclose(at("cosine", (0, 5, 10, 99), start=1.0, end=0.0, over_steps=10), [1, 0.5, 0, 0], atol=1e-6)
    np.testing.assert_allclose(at("inverse", (0, 9, 10, 20), start=0.6, every_steps=10), [0.6, 0.6, 0.3, 0.2], rtol=1e-6)
