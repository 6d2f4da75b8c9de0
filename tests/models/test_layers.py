"""Layers that are written for speed, against their definitions: values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.layers import dense, layer_norm


def plain_norm(params, x, eps):
    mean = x.mean(-1, keepdims=True)
    hat = (x - mean) / jnp.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + eps)
    return hat * params["scale"] + params.get("bias", 0)


def plain_dense(params, x):
    return jnp.einsum("...i,io->...o", x, params["kernel"]) + params.get("bias", 0)


def agree(module, plain, *extra, shape=(3, 4, 6)):
    """Values and all gradients, in float64."""
    rng = np.random.default_rng(0)
    draw = lambda s: jnp.asarray(rng.normal(size=s))
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        x = draw(shape)
        params = jax.tree.map(lambda s: draw(s.shape), jax.eval_shape(module.init, jax.random.key(0), x)["params"])
        params = {name: leaf.value if hasattr(leaf, "value") else leaf for name, leaf in params.items()}
        weight = draw(jax.eval_shape(module.apply, {"params": params}, x).shape)
        gradients = lambda f: jax.value_and_grad(lambda p, x: (f(p, x) * weight).sum(), argnums=(0, 1))(params, x)
        found, expected = gradients(lambda p, x: module.apply({"params": p}, x)), gradients(lambda p, x: plain(p, x, *extra))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11), found, expected)


@pytest.mark.parametrize("use_bias", [True, False])
def test_layer_norm(use_bias):
    agree(layer_norm(1e-3, "float64", "norm", use_bias=use_bias), plain_norm, 1e-3)


@pytest.mark.parametrize("use_bias", [True, False])
def test_dense(use_bias):
    agree(dense(5, ("embed", "mlp"), use_bias=use_bias, dtype="float64", name="layer"), plain_dense)


def test_a_layer_norm_of_a_large_mean_keeps_its_digits():
    """One pass, E[x^2] - E[x]^2, would leave nothing of a variance of 1 beside a mean of 10,000."""
    x = np.float32(10_000) + np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    module = layer_norm(1e-6, "float32", "norm")
    y = module.apply({"params": {"scale": jnp.ones(64), "bias": jnp.zeros(64)}}, jnp.asarray(x))
    exact = x.astype(np.float64)
    expected = (exact - exact.mean(1, keepdims=True)) / exact.std(1, keepdims=True)
    np.testing.assert_allclose(y, expected, atol=2e-3)  # float32 spaces numbers near 10,000 by 1e-3
