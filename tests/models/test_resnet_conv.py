"""The product of patches that stands in for a convolution with few positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.resnet import Conv


@pytest.mark.parametrize("side, size, stride", [(2, 3, 1), (4, 3, 2), (3, 3, 2), (1, 3, 1), (4, 1, 2), (2, 1, 1)])
def test_few_positions_give_what_a_convolution_gives(side, size, stride):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, side, side, 5)), jnp.float32)
    conv = Conv(7, size, stride, "float32", jax.nn.initializers.normal(1.0))
    kernel = conv.init(jax.random.key(0), x)["params"]["kernel"]
    expected = lambda x, k: jax.lax.conv_general_dilated(x, k, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    ours = lambda x, k: conv.apply({"params": {"kernel": k}}, x)
    np.testing.assert_allclose(ours(x, kernel), expected(x, kernel), rtol=1e-5, atol=1e-5)
    gradients = [jax.grad(lambda x, k, f=f: jnp.sum(jnp.sin(f(x, k))), (0, 1))(x, kernel) for f in (ours, expected)]
    for left, right in zip(*gradients, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)
