"""Shuffled group whitening: its statistics, what does not change it, its gradient, its rows on a mesh."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from core import mesh as meshes
from models.whitening import ShuffledWhitening, inverse_root, whiten
from tests.oracles import whitening

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 12)) @ RNG.normal(size=(12, 12)) + 3
ORDER = RNG.permutation(12)


@pytest.fixture(autouse=True, scope="module")
def float64():
    with jax.enable_x64(True):
        yield


@partial(jax.jit, static_argnums=(1, 2))
def white(x, groups, eps=0.0, order=None):
    return whiten(x, groups, eps, order)


@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_it_is_the_definition(eps):
    np.testing.assert_allclose(white(X, 3, eps, ORDER), whitening.whiten(X, 3, eps, ORDER), rtol=1e-10, atol=1e-10)


def test_every_group_has_mean_0_and_covariance_1():
    found = np.asarray(white(X, 3, 0.0, ORDER))[:, ORDER].reshape(16, 3, 4)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-12)
    covariance = np.einsum("bgi,bgj->gij", found, found) / 16
    np.testing.assert_allclose(covariance, np.broadcast_to(np.eye(4), (3, 4, 4)), atol=1e-11)


def test_the_order_matters_only_between_one_group_and_one_channel_each():
    for groups in (1, 12):
        np.testing.assert_allclose(white(X, groups, 0.0, ORDER), white(X, groups, 0.0, np.arange(12)), atol=1e-10)
    assert np.abs(white(X, 3, 0.0, ORDER) - white(X, 3, 0.0, np.arange(12))).max() > 0.1


def test_an_affine_map_inside_a_group_is_a_rotation_of_what_comes_out():
    blocks = np.zeros((12, 12))
    for group in range(3):
        blocks[4 * group : 4 * group + 4, 4 * group : 4 * group + 4] = RNG.normal(size=(4, 4))
    plain, mapped = (np.asarray(white(x, 3, 0.0, np.arange(12))).reshape(16, 3, 4) for x in (X, X @ blocks + RNG.normal(size=12)))
    gram = lambda rows: np.einsum("agi,bgi->gab", rows, rows)
    np.testing.assert_allclose(gram(mapped), gram(plain), atol=1e-8)  # the maps multiply rounding by their condition
    assert np.abs(mapped - plain).max() > 0.1


def test_the_gradient_is_right_where_eigenvalues_are_equal():
    c, direction = np.stack([np.eye(3), np.diag([1.0, 1.0 + 1e-9, 4.0])]), RNG.normal(size=(2, 3, 3))
    direction = direction + direction.transpose(0, 2, 1)
    rooted = jax.jit(lambda c: inverse_root(c, 0.01))
    _, found = jax.jit(lambda c, d: jax.jvp(rooted, (c,), (d,)))(c, direction)
    np.testing.assert_allclose(found, (rooted(c + 1e-5 * direction) - rooted(c - 1e-5 * direction)) / 2e-5, rtol=1e-7, atol=1e-7)
    # Of I the root's differential is -dC / 2, scaled by eps.
    np.testing.assert_allclose(found[0], -direction[0] / 2 * 1.01**-1.5, rtol=1e-12)


def head(**options):
    return ShuffledWhitening(**dict(groups=3) | options)


@pytest.fixture(scope="module")
def params():
    return head().init(jax.random.key(1), jax.random.key(0), one=jnp.zeros((1, 12)))


def test_each_view_and_step_has_an_order_of_its_own(params):
    z = jnp.asarray(X)
    found = lambda key, **options: jax.jit(head(**options).apply)(params, jax.random.key(key), one=z, two=z)
    first, later = found(0), found(1)
    for one, other in ((first["one"], first["two"]), (first["one"], later["one"])):
        assert np.abs(one - other).max() > 0.01
    np.testing.assert_allclose(np.linalg.norm(first["one"], axis=1), 1, rtol=1e-10)
    kernel, bias = (np.asarray(params["params"]["linear"][name].value) for name in ("kernel", "bias"))
    plain = np.tanh(X @ kernel + bias)
    np.testing.assert_allclose(found(0, groups=0)["two"], plain / np.linalg.norm(plain, axis=1, keepdims=True), rtol=1e-10)


UNIT = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
TWO = np.random.default_rng(1).normal(size=(2, 64))
SINGULAR = dict(one_vector=np.ones((16, 64)), two_vectors=TWO[np.arange(16) % 2])


def test_float32_and_the_usual_eps_whiten_unit_vectors():
    """Variances in a group of 8 channels go down to about 1 / 100, of which eps takes away 1e-4; float32 rounds to about 1e-6."""
    rng = np.random.default_rng(1)
    x, order, weight = UNIT(rng.normal(size=(512, 64))), rng.permutation(64).astype(np.int32), rng.normal(size=(512, 64))

    def objective(x):
        found = white(x, 8, 1e-6, order)
        return (jnp.sin(found) * jnp.asarray(weight, x.dtype)).sum(), found

    gradient = jax.jit(jax.grad(objective, has_aux=True))
    exact, _ = gradient(x)
    with jax.enable_x64(False):
        slope, found = (np.asarray(array) for array in gradient(x.astype(np.float32)))
    assert slope.dtype == found.dtype == np.float32
    np.testing.assert_allclose(found, whitening.whiten(x, 8, 1e-6, order), atol=2e-5)
    np.testing.assert_allclose(slope, exact, atol=2e-5 * np.abs(exact).max())
    groups = found[:, order].reshape(512, 8, 8)
    covariance = np.einsum("bgi,bgj->gij", groups, groups) / 512
    np.testing.assert_allclose(covariance, np.broadcast_to(np.eye(8), (8, 8, 8)), atol=2e-4)


@pytest.mark.parametrize("name", SINGULAR)
def test_float32_and_the_usual_eps_stay_finite_on_singular_covariances(name):
    with jax.enable_x64(False):
        x, key, module = jnp.asarray(UNIT(SINGULAR[name]), jnp.float32), jax.random.key(0), ShuffledWhitening(groups=8)
        params = module.init(jax.random.key(1), key, one=x)
        objective = lambda params, x: jnp.sin(4 * module.apply(params, key, one=x)["one"]).sum()
        value, gradients = jax.jit(jax.value_and_grad(objective, argnums=(0, 1)))(params, x)
        assert all(np.isfinite(leaf).all() and leaf.dtype == np.float32 for leaf in jax.tree.leaves((value, gradients)))


def test_statistics_and_gradients_are_those_of_all_rows_on_every_mesh(params):
    def objective(z):
        found = head().apply(params, jax.random.key(0), one=z, two=z)
        return (found["one"] * jnp.roll(found["two"], 1, axis=1)).sum()

    expected = jax.jit(jax.value_and_grad(objective))(jnp.asarray(X))
    mesh = meshes.make(2, 2, 2, devices=jax.devices())
    with jax.set_mesh(mesh):
        split = jax.device_put(X, jax.sharding.NamedSharding(mesh, P(("data", "fsdp"))))
        found = jax.jit(jax.value_and_grad(objective))(split)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), found, expected)


@pytest.mark.parametrize(
    "groups, rows, key, said",
    [
        (5, 16, 0, r"5 groups of 12 channels over 16 rows.*options.groups to [46]"),
        (1, 12, 0, r"fewer channels than rows: set config.model.heads.<label>.options.groups to 2"),
        (3, 16, None, "config.model.heads.<label>.inputs.key to 'key'"),
    ],
)
def test_what_cannot_be_whitened_is_refused(params, groups, rows, key, said):
    with pytest.raises(ValueError, match=said):
        head(groups=groups).apply(params, None if key is None else jax.random.key(key), one=jnp.asarray(X[:rows]))
