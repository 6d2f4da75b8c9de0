"""Attention, MLP and whole towers beside a naive float64 evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.attention import Attention, attend, attend_near
from models.layers import ACTIVATIONS, layer_norm
from models.position import sincos_2d
from models.transformer import Mlp
from tests.models import toys
from tests.oracles import towers

TOLERANCE = 1e-5  # float32 sums of up to 64 terms of size 1


def states(rows=3, length=5, width=8, seed=1):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((rows, length, width)), jnp.float32)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_attention(causal, masked):
    x = states()
    mask = np.arange(5)[None] < np.array([5, 3, 1])[:, None]
    module = Attention(heads=2, causal=causal)
    params = toys.init(module, x)
    found = module.apply({"params": params}, x, jnp.asarray(mask) if masked else None)
    seen = lambda row: lambda i, j: (j <= i or not causal) and (mask[row, j] or not masked)
    expected = np.stack([towers.attention(np.asarray(x[r], float), towers.wide(params), 2, seen(r)) for r in range(3)])
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


def test_dropout_of_attention_weights_by_definition():
    """softmax, then zeros and 1 / (1 - rate): what is kept does not sum to one."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((3, 2, 5, 4)) for _ in range(3))
    kept = rng.random((3, 2, 5, 5)) < 0.6
    scores = np.exp(np.einsum("bhqd,bhkd->bhqk", q, k) / 2)
    expected = np.einsum("bhqk,bhkd->bhqd", scores / scores.sum(-1, keepdims=True) * kept / 0.6, v)
    single = [jnp.asarray(a, jnp.float32) for a in (q, k, v)]
    np.testing.assert_allclose(attend(*single, None, drop=lambda w: w * kept / 0.6), expected, rtol=0, atol=TOLERANCE)
    near = attend_near(*single, None, 1, False, lambda w: 2 * w)
    np.testing.assert_allclose(near, 2 * attend_near(*single, None, 1, False), rtol=1e-6)


@pytest.mark.parametrize("window", [0, 1])
@pytest.mark.parametrize("kv_heads", [0, 1])
def test_each_row_head_and_block_drops_weights_of_its_own(kv_heads, window):
    """Scores of zero and values of one: a head's output is the share of weights it kept, over 1 - rate."""
    module = Attention(heads=2, kv_heads=kv_heads, window=window, dropout=0.5, qkv_bias=False, out_bias=False)
    x = jnp.ones((4, 12, 8))
    params = jax.tree.map(jnp.zeros_like, toys.init(module, x))
    name = "kv_kernel" if kv_heads else "qkv_kernel"
    params[name] = params[name].at[0, -1].set(1.0)  # the last part are the values
    params["out"]["kernel"] = jnp.eye(8)
    shares = lambda keys, index=0: np.asarray(module.apply({"params": params}, x, keys=keys, index=index))[..., [0, 4]]
    found = shares(toys.keys())
    np.testing.assert_allclose(shares(None), 1.0, rtol=1e-6)
    assert not (found[0] == found[1]).all() and not (found[..., 0] == found[..., 1]).all()
    np.testing.assert_array_equal(shares(toys.keys()[::-1]), found[::-1])
    assert not (shares(toys.keys(), 1) == found).all()
    keys = 2 + bool(not window) * 10  # on each line; 3 inside a window
    assert abs(found.mean() - 1) < 4 * (found.size * keys) ** -0.5  # each kept with 1/2, so a deviation of one per weight


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_mlp(activation):
    x = states()
    module = Mlp(ratio=2.0, activation=activation)
    params = toys.init(module, x)
    np.testing.assert_allclose(
        module.apply({"params": params}, x), towers.mlp(np.asarray(x, float), towers.wide(params), activation), rtol=0, atol=TOLERANCE
    )


def test_layer_norm_keeps_digits_where_the_mean_is_large():
    x = states() + 1000
    module = layer_norm(1e-6, "float32", "norm")
    params = toys.init(module, x)
    expected = towers.layer_norm(np.asarray(x, float), towers.wide(params), 1e-6)
    np.testing.assert_allclose(module.apply({"params": params}, x), expected, rtol=0, atol=1e-3)  # the one-pass variance is off by 0.1


@pytest.mark.parametrize(
    "options",
    [
        {},
        dict(causal=False, pooling="mean", activation="gelu_tanh"),
        dict(causal=False, pooling="attention", activation="quick_gelu", mlp_ratio=2.0),
        dict(causal=True, pooling="last", heads=4),
        dict(causal=False, pooling="cls"),
    ],
    ids=str,
)
def test_text(options):
    tower, (ids, mask) = toys.tower("text", **options), toys.texts()
    params = toys.init(tower, ids, mask)
    found = jax.jit(tower.apply)({"params": params}, ids, mask)["embedding"]
    np.testing.assert_allclose(found, towers.text(params, tower, np.asarray(ids), np.asarray(mask)), rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize(
    "options",
    [{}, dict(pooling="attention", posemb="sincos2d"), dict(pooling="cls", pixel_mean=(0.2, 0.6), pixel_std=(0.3, 0.5))],
    ids=str,
)
def test_vit(options):
    tower, images = toys.tower("vit", **options), toys.images()
    params = toys.init(tower, images)
    found = jax.jit(tower.apply)({"params": params}, images)["embedding"]
    np.testing.assert_allclose(found, towers.vit(params, tower, np.asarray(images)), rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("side, width", [(1, 8), (3, 16)])
def test_sincos_table(side, width):
    np.testing.assert_allclose(sincos_2d(side, side, width), towers.sincos(side, width), rtol=0, atol=1e-6)


@pytest.mark.parametrize("width", [4, 10])
def test_sincos_table_refuses_other_widths(width):
    with pytest.raises(ValueError, match=f"multiple of 4 and at least 8, not {width}"):
        sincos_2d(2, 2, width)


def test_patch_embedding_is_a_strided_convolution():
    tower, images = toys.tower("vit", layers=0, embed_dim=0, pooling="cls"), toys.images()
    params = toys.init(tower, images)
    hook_states = []
    tower.apply({"params": params}, images, hook=lambda i, x, mask: (hook_states.append(x) or x, mask))
    pixels = (images.astype(jnp.float32) / 255 - 0.5) / 0.5
    conv = jax.lax.conv_general_dilated(pixels, params["patch_kernel"], (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    expected = conv.reshape(4, 4, 16) + params["patch_bias"][None, None] + params["position_embedding"]
    np.testing.assert_allclose(hook_states[0][:, 1:], expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_array_equal(hook_states[0][:, 0], np.broadcast_to(params["class_token"][0], (4, 16)))
