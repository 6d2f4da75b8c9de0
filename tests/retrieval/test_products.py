"""Rounded operands of matrix products, and nothing else rounded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval.products import rounded


def operands(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]


def test_a_product_is_that_of_rounded_operands_in_float32():
    x, w = operands((3, 5), (5, 4))
    exact = np.asarray(x.astype(jnp.bfloat16), np.float64) @ np.asarray(w.astype(jnp.bfloat16), np.float64)
    made = jax.jit(rounded(jnp.matmul, "bfloat16"))(x, w)
    assert made.dtype == jnp.float32
    np.testing.assert_allclose(made, exact, rtol=1e-6, atol=1e-6)
    assert np.abs(np.asarray(x @ w) - exact).max() > 1e-4


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint])
def test_products_inside_calls_are_found(wrap):
    x, w = operands((3, 5), (5, 4))
    inner = wrap(lambda a, b: jax.nn.gelu(a @ b))  # gelu and relu are calls of their own
    function = lambda tree: {"y": inner(tree["x"], tree["w"]) + 1}
    expected = jax.nn.gelu(rounded(jnp.matmul, "bfloat16")(x, w)) + 1
    np.testing.assert_allclose(jax.jit(rounded(function, "bfloat16"))({"x": x, "w": w})["y"], expected, atol=1e-6)


def test_what_is_no_product_by_a_matrix_stays_exact():
    q, k = operands((2, 3, 5), (2, 4, 5))
    attention = lambda q, k: jax.nn.softmax(jnp.einsum("bqd,bkd->bqk", q, k))
    np.testing.assert_array_equal(rounded(attention, "bfloat16")(q, k), attention(q, k))
    counts = jnp.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(rounded(lambda a: a @ a.T, "bfloat16")(counts), counts @ counts.T)
