"""Augmentation by definition, and its bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from input_pipeline import image as image_ops
from input_pipeline import transforms
from tests.oracles import affine


class Drawn:
    """Stands for a generator whose first four draws are known."""

    def __init__(self, right=0.0, down=0.0, size=0.0, turn=0.0):
        self.draws = (np.array([right, down, size, turn]) + 1) / 2

    def random(self, count):
        assert count == 4
        return self.draws


def framed(rng, size=20, margin=6, channels=1):
    """Random pixels inside a frame of 0."""
    image = np.zeros((size, size, channels), np.uint8)
    inner = size - 2 * margin
    image[margin:-margin, margin:-margin] = rng.integers(0, 256, (inner, inner, channels))
    return image


@settings(max_examples=40, deadline=None)
@given(draws=st.tuples(*[st.floats(-1, 1)] * 4), seed=st.integers(0, 100))
def test_geometry_equals_bilinear_sampling(draws, seed):
    image = framed(np.random.default_rng(seed))
    options = dict(shift=0.1, scale=0.2, rotate=20.0)
    (moved,) = image_ops.augment([image], [Drawn(*draws)], **options)
    right, down, size, turn = draws
    expected = affine.move(image[..., 0].astype(np.float64), 2.0 * right, 2.0 * down, 1.2**size, 20.0 * turn)
    # Pillow cuts to whole numbers and steps through a row in fixed point.
    assert np.abs(moved[..., 0] - expected).max() <= 2.0


def test_a_move_goes_right_and_down_by_whole_pixels():
    image = framed(np.random.default_rng(0), channels=3)
    (moved,) = image_ops.augment([image], [Drawn(right=1.0, down=-0.5)], shift=0.2)
    np.testing.assert_array_equal(moved, np.roll(image, (-2, 4), (0, 1)))


def test_no_strength_changes_nothing():
    images = np.random.default_rng(0).integers(0, 256, (5, 9, 7, 3), dtype=np.uint8)
    rngs = [np.random.default_rng(i) for i in range(5)]
    np.testing.assert_array_equal(image_ops.augment(images, rngs), images)


def test_a_strength_can_be_changed_alone():
    image = framed(np.random.default_rng(0))
    (moved,) = image_ops.augment([image], [np.random.default_rng(1)], shift=0.1, rotate=8.0)
    (noisy,) = image_ops.augment([image], [np.random.default_rng(1)], shift=0.1, rotate=8.0, noise=0.004)
    assert 0 < np.abs(moved.astype(int) - noisy).max() <= 4


def test_noise_has_the_stated_spread_and_no_bias():
    grey = np.full((16, 32, 32, 1), 128, np.uint8)
    noisy = image_ops.augment(grey, [np.random.default_rng(i) for i in range(16)], noise=0.05).astype(np.float64) - 128
    # 16,384 draws with deviation 12.75: the mean is known to 0.1, the deviation to 0.07; rounding adds 0.01.
    assert abs(noisy.mean()) < 0.4 and abs(noisy.std() - 12.75) < 0.3
    assert len(np.unique(noisy)) > 40


def test_noise_is_clipped_at_black_and_white():
    for value in (0, 255):
        (noisy,) = image_ops.augment([np.full((8, 8, 1), value, np.uint8)], [np.random.default_rng(0)], noise=0.2)
        assert noisy.dtype == np.uint8 and np.abs(noisy.astype(int) - value).max() < 160 and (noisy == value).any()


@settings(max_examples=60, deadline=None)
@given(top=st.integers(0, 10), left=st.integers(0, 10), seed=st.integers(0, 1000))
def test_keep_inside_loses_no_ink(top, left, seed):
    image = np.zeros((20, 20, 1), np.uint8)
    image[top : top + 10, left : left + 10] = 200
    options = dict(shift=0.3, rotate=8.0)
    (kept,) = image_ops.augment([image], [np.random.default_rng(seed)], keep_inside=True, **options)
    # A turned square keeps its area; half a pixel of its border may be lost to resampling.
    assert kept.sum(dtype=np.int64) >= 0.93 * image.sum(dtype=np.int64)


def test_keep_inside_only_shortens_moves_that_cut():
    image = framed(np.random.default_rng(0))
    for seed in range(5):
        plain, kept = (image_ops.augment([image], [np.random.default_rng(seed)], shift=0.1, keep_inside=k) for k in (False, True))
        np.testing.assert_array_equal(plain, kept)
    corner = np.zeros((20, 20, 1), np.uint8)
    corner[0:5, 0:5] = 255
    (cut,) = image_ops.augment([corner], [Drawn(right=-1.0, down=-1.0)], shift=0.1)
    (kept,) = image_ops.augment([corner], [Drawn(right=-1.0, down=-1.0)], shift=0.1, keep_inside=True)
    assert cut.sum(dtype=np.int64) == 9 * 255 and kept.sum(dtype=np.int64) == 25 * 255


@pytest.mark.parametrize("channels", [1, 3])
def test_evaluation_changes_no_image(channels):
    images = list(np.random.default_rng(0).integers(0, 256, (4, 8, 8, channels), dtype=np.uint8))
    out = transforms.augment(images, None, None, shift=0.5, scale=0.5, rotate=90.0, noise=1.0)
    np.testing.assert_array_equal(out[""], np.stack(images))


def test_resize_brings_images_to_one_shape():
    rng = np.random.default_rng(0)
    images = [np.full((h, w, 1), 77, np.uint8) for h, w in rng.integers(3, 30, (4, 2))]
    out = transforms.resize(images, None, None, height=6, width=9)
    assert out[""].shape == (4, 6, 9, 1) and (out[""] == 77).all()


@pytest.mark.parametrize("height, width", [(20, 30), (30, 20), (8, 8), (9, 64)])
def test_a_crop_is_the_middle_of_a_picture_of_the_same_shape(height, width):
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    rows, columns = (8, 8 * width // height) if height <= width else (8 * height // width, 8)
    whole = image_ops.resize(picture, rows, columns)
    top, left = (rows - 8) // 2, (columns - 8) // 2
    np.testing.assert_array_equal(image_ops.resize(picture, 8, 8, crop=True), whole[top : top + 8, left : left + 8])
