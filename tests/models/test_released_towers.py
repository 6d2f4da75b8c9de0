"""Options that released image-text towers need: what they may change, by definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from core.config import ConfigError
from tests.models import toys

CLIP = dict(pooling="cls", class_position=True, pre_norm=True, patch_bias=False)


def applied(tower, x, mask=None):
    """Random parameters, and embeddings of x as a compiled function of parameters, inputs and mask."""
    params = toys.init(tower, x, mask)
    run = jax.jit(lambda params, x, mask: tower.apply({"params": params}, x, mask)["embedding"])
    return params, lambda params, x, mask=None: np.asarray(run(params, x, mask))


def test_the_class_token_s_position_is_added_to_it():
    params, embed = applied(toys.tower("vit", **CLIP), toys.images())
    assert params["position_embedding"].shape == (1, 5, 16) and "patch_bias" not in params
    shift = jnp.asarray(np.random.default_rng(1).standard_normal((1, 1, 16)), jnp.float32)
    in_token = params | {"class_token": params["class_token"] + shift}
    in_table = params | {"position_embedding": params["position_embedding"].at[:, :1].add(shift)}
    np.testing.assert_allclose(embed(in_token, toys.images()), embed(in_table, toys.images()), rtol=1e-5, atol=1e-6)
    assert np.abs(embed(in_token, toys.images()) - embed(params, toys.images())).max() > 1e-2


def test_the_norm_of_the_embeddings_hides_their_scale():
    params, embed = applied(toys.tower("vit", **CLIP), toys.images())
    louder = params | {name: 8.0 * params[name] for name in ("patch_kernel", "class_token", "position_embedding")}
    np.testing.assert_allclose(embed(louder, toys.images()), embed(params, toys.images()), rtol=1e-4, atol=1e-5)  # up to eps in the norm


def test_pixels_beyond_the_last_patch_change_nothing():
    images = toys.images(size=10)
    params, embed = applied(toys.tower("vit", image_size=10, drop_edge=True), images)
    whole, on_whole = applied(toys.tower("vit"), toys.images())
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, whole)
    np.testing.assert_array_equal(embed(params, images.at[:, 8:].set(0).at[:, :, 8:].set(255)), embed(params, images))
    np.testing.assert_allclose(on_whole(params, images[:, :8, :8]), embed(params, images), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("options", [dict(pooling="mean"), dict(pooling="cls", posemb="sincos2d")], ids=str)
def test_a_position_needs_a_class_token_and_a_table(options):
    with pytest.raises(ConfigError, match="options.class_position needs a class token and a learned table"):
        jax.eval_shape(lambda: toys.tower("vit", class_position=True, **options).init(jax.random.key(0), toys.images()))


def test_a_tower_that_attends_to_padding_leaves_the_mask_unused():
    ids, mask = toys.texts()
    params, embed = applied(toys.tower("text", causal=False, pooling="last", attend_padding=True, projection_bias=True), ids, mask)
    assert params["projection"]["bias"].shape == (8,)
    np.testing.assert_array_equal(embed(params, ids, mask), embed(params, ids, jnp.ones_like(mask)))
    assert np.abs(embed(params, jnp.where(mask, ids, 17), mask) - embed(params, ids, mask)).max() > 1e-3


def test_a_negative_end_of_text_is_the_largest_id():
    ids, mask = toys.texts()
    largest = jnp.where(ids == toys.EOS, 39, jnp.where(ids == 39, 4, ids))
    params, embed = applied(toys.tower("text", eos_id=-1), ids, mask)
    _, by_id = applied(toys.tower("text", eos_id=39), ids, mask)
    np.testing.assert_array_equal(embed(params, largest), by_id(params, largest))
