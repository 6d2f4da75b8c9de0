"""Images as patches with places: what the budget allows, and that nothing is lost on the way."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from input_pipeline import image as image_ops
from input_pipeline import patches, transforms


@settings(max_examples=100, deadline=None)
@given(height=st.integers(1, 2000), width=st.integers(1, 2000), patch=st.sampled_from([8, 14, 16]), budget=st.integers(1, 64))
def test_the_grid_is_the_largest_of_its_shape(height, width, patch, budget):
    """Sides change where a scale makes one of them whole patches; the greatest such scale that fits counts."""
    sides = lambda scale: tuple(max(math.ceil(side * scale / patch), 1) for side in (height, width))
    scales = [Fraction(n * patch, side) for side in (height, width) for n in range(1, budget + 1)] + [Fraction(100)]
    best = max((s for s in scales if s <= 100 and math.prod(sides(s)) <= budget), default=Fraction(0))
    assert patches.grid(height, width, patch, budget) in (sides(best), sides(max(best - Fraction(2, 100_000), Fraction(0))))


@pytest.mark.parametrize(("shape", "wanted"), [((512, 512), (16, 16)), ((1000, 10), (128, 2)), ((3000, 2), (256, 1)), ((1, 1), (7, 7))])
def test_grids_of_some_shapes(shape, wanted):
    assert patches.grid(*shape, 16, 256) == wanted
    assert patches.grid(*shape[::-1], 16, 256) == wanted[::-1]


def test_places_fit_a_byte():
    assert patches.grid(3000, 1, 8, 1000) == (256, 1)
    made, mask = patches.padded(np.ones((256 * 8, 8, 1), np.uint8), 8, 1000)
    np.testing.assert_array_equal(made[mask][:, -2, 0], np.arange(256))


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_and_places_give_the_image_back(channels):
    image = np.random.default_rng(0).integers(0, 256, (12, 20, channels), dtype=np.uint8)
    made, mask = patches.padded(image, 4, 18)
    assert made.shape == (18, 18, channels) and mask.tolist() == [True] * 15 + [False] * 3
    assert not made[~mask].any()
    back = np.zeros_like(image)
    for piece in made[mask]:
        row, column = piece[-2:, 0]
        back[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = piece[:-2].reshape(4, 4, channels)
    np.testing.assert_array_equal(back, image)


def test_images_of_several_shapes_share_a_batch():
    rng = np.random.default_rng(0)
    values = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((40, 40), (20, 80), (90, 30))]
    found = transforms.patches(values, None, None, patch=8, budget=24)
    assert found[""].shape == (3, 24, 66, 3) and found["_mask"].shape == (3, 24)
    for image, pieces, mask in zip(values, found[""], found["_mask"], strict=True):
        rows, columns = patches.grid(*image.shape[:2], 8, 24)
        assert mask.sum() == rows * columns > 15
        resized = image_ops.resize(image, 8 * rows, 8 * columns, kernel="bilinear")
        np.testing.assert_array_equal(pieces[mask][:, :-2], patches.cut(resized, 8))


def test_a_flip_changes_what_training_sees_alone():
    values = [np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)]
    plain = transforms.patches(values, None, None, patch=8, budget=16, flip=1.0)
    flipped = transforms.patches(values, iter([np.random.default_rng(0)]), None, patch=8, budget=16, flip=1.0)
    mirrored = transforms.patches([values[0][:, ::-1]], None, None, patch=8, budget=16)
    assert not np.array_equal(plain[""], flipped[""])
    np.testing.assert_array_equal(flipped[""], mirrored[""])
