"""The sigmoid loss against its definition, and the exact values that follow from it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.sigmoid import sigmoid
from tests.losses import drawn
from tests.losses.test_infonce import SIZES, drawn_batch
from tests.oracles import pair_losses


def value(negatives="all", **arrays):
    return compiled(negatives)(**arrays)[0]


@functools.cache
def compiled(negatives):
    return jax.jit(functools.partial(sigmoid, negatives=negatives))


@settings(deadline=None, max_examples=20, derandomize=True)
@given(**SIZES, negatives=st.sampled_from(["all", "own"]))
def test_value_is_the_definition(negatives, **sizes):
    arrays = drawn_batch(sigmoid, **sizes)
    with jax.enable_x64(True):
        expected = pair_losses.sigmoid(**arrays, negatives=negatives)
        np.testing.assert_allclose(value(**arrays, negatives=negatives), expected, rtol=1e-12, atol=1e-12)


def test_orthogonal_embeddings_at_the_initial_bias():
    """softplus(10) + (B - 1) softplus(-10): 10.0007 at B = 16."""
    zq, zp = np.eye(32, dtype=np.float32)[:16], np.eye(32, dtype=np.float32)[16:]
    loss = value(zq=zq, zp=zp, logit_scale=np.float32(10), logit_bias=np.float32(-10))
    np.testing.assert_allclose(loss, np.logaddexp(0, 10) + 15 * np.logaddexp(0, -10), rtol=1e-6)
    np.testing.assert_allclose(loss, 10.0007, atol=5e-5)


def test_gradient_of_the_bias_is_the_closed_form():
    """dL/dc = (sum of sigmoid(Z) - B) / B, which is 0 at c = -ln(B - 1) where every cosine is 0."""
    arrays = drawn.inputs(sigmoid, drawn.batch(padded=0), without=drawn.OPTIONAL)
    gradient = jax.jit(jax.grad(lambda c, others: value(**others, logit_bias=c).mean()))
    bias = arrays.pop("logit_bias")
    logits = arrays["logit_scale"] * arrays["zq"] @ arrays["zp"].T + bias
    np.testing.assert_allclose(gradient(bias, arrays), (jax.nn.sigmoid(logits).sum() - 8) / 8, rtol=1e-5)
    arrays |= {"zq": np.eye(16, dtype=np.float32)[:8], "zp": np.eye(16, dtype=np.float32)[8:]}
    np.testing.assert_allclose(gradient(np.float32(-np.log(7)), arrays), 0, atol=1e-6)


def test_gradient_by_logits_is_sigmoid_minus_label():
    batch = drawn.batch(width=8, classes=3)
    id, bias, scale = jnp.asarray(batch["id"]), jnp.float32(-1), jnp.float32(1)
    gradient = jax.jit(jax.grad(lambda zq: sigmoid(zq, jnp.eye(8), scale, bias, id)[0].sum()))(jnp.asarray(batch["zq"]))
    label = (batch["id"][:, None] == batch["id"][None, :]) | np.eye(8, dtype=bool)
    np.testing.assert_allclose(gradient, jax.nn.sigmoid(batch["zq"] - 1) - label, atol=1e-6)


def test_a_partition_of_the_columns_adds_up():
    """Passages that belong to no query add their own sum, whatever else is asked."""
    arrays = drawn.inputs(sigmoid, drawn.batch(passages=12, padded=0), without=("weight", "zn"))
    logits = arrays["logit_scale"] * arrays["zq"] @ arrays["zp"][8:].T + arrays["logit_bias"]
    parts = value(**(arrays | {"zp": arrays["zp"][:8]})) + np.logaddexp(0, logits).sum(1)
    np.testing.assert_allclose(value(**arrays), parts, rtol=1e-5)


def test_a_further_positive_only_flips_its_label():
    """softplus(-z) instead of softplus(z): the loss falls by the logit, in both rows of the pair."""
    arrays = drawn.inputs(sigmoid, drawn.batch(padded=0), without=drawn.OPTIONAL)
    id = np.r_[0, 0, 2:8]
    logits = arrays["logit_scale"] * arrays["zq"] @ arrays["zp"].T + arrays["logit_bias"]
    change = np.zeros(8)
    change[0], change[1] = -logits[0, 1], -logits[1, 0]
    np.testing.assert_allclose(value(**arrays, id=id) - value(**arrays), change, atol=1e-5)


def test_gradient_of_unnormalised_embeddings_is_orthogonal_to_them():
    raw = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    zp = jnp.asarray(drawn.batch()["zp"])

    def objective(raw):
        return sigmoid(raw / jnp.linalg.norm(raw, axis=1, keepdims=True), zp, jnp.float32(10), jnp.float32(-3))[0].sum()

    np.testing.assert_allclose((np.asarray(jax.jit(jax.grad(objective))(raw)) * raw).sum(1), 0, atol=2e-5)


def test_logits_far_from_zero_keep_their_digits():
    """log(sigmoid(z)) would be log(0) here."""
    one = np.ones((1, 1), np.float32)
    np.testing.assert_allclose(value(zq=one, zp=-one, logit_scale=np.float32(200), logit_bias=np.float32(0)), 200)
