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
from tests.oracles import mixing

BATCH = drawn.batch(queries=6, padded=0)
Z = ("zq", "zp", "logit_scale")


def take(batch, *names):
    return {name: jnp.asarray(batch[name]) for name in names or Z}


@functools.partial(jax.jit, static_argnums=(0,), static_argnames=("weighted", "temperature"))
def value(loss, arrays, **options):
    return loss(**arrays, **options)[0]


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
