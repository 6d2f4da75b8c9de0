"""Patches, positions and the class token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import toys


def permuted(images, order, size=4):
    """Images whose patches change places."""
    rows, height, width, channels = images.shape
    cut = (
        images.reshape(rows, height // size, size, width // size, size, channels)
        .transpose(0, 1, 3, 2, 4, 5)
        .reshape(rows, -1, size, size, channels)
    )
    moved = cut[:, jnp.asarray(order)].reshape(rows, height // size, width // size, size, size, channels)
    return moved.transpose(0, 1, 3, 2, 4, 5).reshape(images.shape)


@pytest.mark.parametrize("pooling", ["mean", "attention", "cls"])
def test_without_positions_patches_have_no_order(pooling):
    tower, images = toys.tower("vit", pooling=pooling), toys.images()
    params = toys.init(tower, images)
    apply = jax.jit(lambda params, images: tower.apply({"params": params}, images)["embedding"])
    moved = permuted(images, [2, 0, 3, 1])
    assert np.abs(apply(params, moved) - apply(params, images)).max() > 1e-2
    blind = params | {"position_embedding": jnp.zeros_like(params["position_embedding"])}
    np.testing.assert_allclose(apply(blind, moved), apply(blind, images), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("pooling", ["mean", "attention", "cls"])
def test_only_cls_has_a_class_token(pooling):
    tower, images = toys.tower("vit", pooling=pooling), toys.images()
    params = toys.init(tower, images)
    assert ("class_token" in params) == (pooling == "cls")
    assert params["position_embedding"].shape == (1, 4, 16)  # none for the class token
    if pooling == "cls":
        gradient = jax.jit(jax.grad(lambda p: jnp.sum(tower.apply({"params": p}, images)["embedding"][:, 0])))(params)
        assert np.abs(gradient["class_token"]).max() > 1e-3


def test_a_fixed_table_is_no_parameter():
    tower = toys.tower("vit", posemb="sincos2d")
    assert "position_embedding" not in toys.init(tower, toys.images())


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(patch_size=3), "patches of 3 do not tile 8 pixels; change the vit tower's options.patch_size"),
        (dict(posemb="rope"), "options.posemb is 'rope'; choices: learn, sincos2d"),
        (dict(pooling="eos"), "pooling 'eos' needs token ids and their end of text, .* for images to 'cls', 'mean' or 'attention'"),
        (dict(posemb="sincos2d", width=18), "multiple of 4 and at least 8, not 18"),
    ],
    ids=str,
)
def test_wrong_options_name_the_key(options, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: toys.tower("vit", **options).init(jax.random.key(0), toys.images()))
