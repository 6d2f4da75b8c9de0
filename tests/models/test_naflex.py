"""Images of any shape: positions by definition, and that neither padding nor what it holds is seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from core.config import ConfigError
from input_pipeline.patches import padded
from models.naflex import shares
from tests.models import toys


@pytest.fixture(scope="module")
def made():
    """A tower whose table has the places of a 4 x 4 grid, with its parameters."""
    tower = toys.tower("naflex", grid=4, pooling="attention", layers=1)
    return jax.jit(lambda p, *inputs: tower.apply({"params": p}, *inputs)["embedding"]), toys.init(tower, *toys.patches())


@pytest.mark.parametrize("entries, count", [(4, 4), (4, 7), (5, 1), (5, 3), (3, 256)])
def test_positions_are_resized_as_pillow_resizes_pixels(entries, count):
    found = jax.jit(shares, static_argnums=2)(np.arange(count)[None], np.array([[count]]), entries)[0]
    column = lambda entry: Image.fromarray(np.eye(entries, dtype=np.float32)[:, [entry]]).resize((1, count), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(found, np.concatenate([column(entry) for entry in range(entries)], axis=1), atol=1e-6)


def test_a_square_image_is_what_vit_makes_of_it(made):
    embed, params = made
    vit = toys.tower("vit", image_size=8, patch_size=2, pooling="attention", layers=1)
    images = toys.images()
    patches = np.stack([padded(np.asarray(image), 2, 16)[0] for image in images])
    expected = jax.jit(vit.apply)({"params": params}, images)["embedding"]
    np.testing.assert_allclose(embed(params, patches, None), expected, rtol=1e-5, atol=1e-5)


def test_neither_the_length_of_padding_nor_what_it_holds_is_seen(made):
    embed, params = made
    image, mask = toys.patches()
    assert not mask.all()
    expected = embed(params, image, mask)
    noise = np.random.default_rng(1).integers(0, 256, image.shape, np.uint8)
    np.testing.assert_array_equal(embed(params, jnp.where(mask[..., None, None], image, noise), mask), expected)
    longer = [np.pad(a, ((0, 0), (0, 10)) + ((0, 0),) * (a.ndim - 2), constant_values=fill) for a, fill in ((image, 77), (mask, False))]
    np.testing.assert_allclose(embed(params, *longer), expected, rtol=1e-5, atol=1e-5)
    moved = np.random.default_rng(0).permutation(16)  # a patch says where it belongs
    np.testing.assert_allclose(embed(params, *(a[:, moved] for a in longer)), expected, rtol=1e-5, atol=1e-5)


def test_places_count(made):
    """The same patches side by side and one below the other are different images."""
    embed, params = made
    pixels = np.random.default_rng(0).integers(0, 256, (4, 2, 2, 2), np.uint8)
    images = [np.concatenate(pixels, axis=axis) for axis in (0, 1, 0, 1)]
    found = embed(params, *map(np.stack, zip(*(padded(image, 2, 6) for image in images), strict=True)))
    assert np.abs(found[0] - found[1]).max() > 1e-2


def test_an_image_of_one_patch(made):
    embed, params = made
    image, mask = padded(np.full((2, 2, 2), 9, np.uint8), 2, 6)
    found = embed(params, *(np.repeat(a[None], 4, axis=0) for a in (image, mask)))
    assert np.isfinite(found).all() and mask.sum() == 1


def test_there_is_no_class_token():
    with pytest.raises(ConfigError, match="a naflex tower has no class token; set its options.pooling to 'attention' or 'mean'"):
        jax.eval_shape(lambda: toys.tower("naflex", pooling="cls").init(jax.random.key(0), *toys.patches()))
