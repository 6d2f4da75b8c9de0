"""Changes of colour by definition; mixtures of two rows keep account of their shares."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from input_pipeline import colour, transforms


def images(count=4, side=12, channels=3):
    return np.random.default_rng(0).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


class Drawn:
    """Stands for a generator whose draws are known."""

    def __init__(self, *draws, order=(0, 1, 2, 3)):
        self.draws, self.order = list(draws), np.array(order)

    def permutation(self, count):
        return self.order

    def random(self, count):
        return np.array([self.draws.pop(0) for _ in range(count)])


def luma(image):
    return image @ np.array([0.299, 0.587, 0.114])


def test_jitter_by_definition():
    image = images(1)[0] // 2 + 60
    exact = image.astype(np.float64)
    brighter = colour.jitter(image, Drawn(1.0, 0, 0, 0), 0.3, 0, 0, 0)
    np.testing.assert_allclose(brighter, np.clip(1.3 * exact, 0, 255), atol=1)
    flatter = colour.jitter(image, Drawn(0, 0.0, 0, 0), 0, 0.4, 0, 0)
    np.testing.assert_allclose(flatter, luma(exact).mean() + 0.6 * (exact - luma(exact).mean()), atol=1.5)
    paler = colour.jitter(image, Drawn(0, 0, 0.0, 0), 0, 0, 0.5, 0)
    np.testing.assert_allclose(paler, luma(exact)[..., None] + 0.5 * (exact - luma(exact)[..., None]), atol=1.5)


def test_hue_turns_the_circle():
    red = np.tile(np.array([200, 40, 40], np.uint8), (4, 4, 1))
    third = colour.jitter(red, Drawn(0, 0, 0, (1 + 2 / 3) / 2), 0, 0, 0, 0.5)  # by a third of the circle
    np.testing.assert_allclose(third, np.tile([40, 200, 40], (4, 4, 1)), atol=4)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), channels=st.sampled_from([1, 3]))
def test_no_strength_changes_nothing_and_any_keeps_the_shape(seed, channels):
    image = images(1, channels=channels)[0]
    np.testing.assert_array_equal(colour.jitter(image, np.random.default_rng(seed), 0, 0, 0, 0), image)
    changed = colour.jitter(image, np.random.default_rng(seed), 0.8, 0.8, 0.8, 0.5)
    assert changed.shape == image.shape and changed.dtype == np.uint8


@pytest.mark.parametrize("name", sorted(colour.OPERATIONS))
@pytest.mark.parametrize("channels", [1, 3])
def test_every_operation_keeps_the_shape(name, channels):
    image = np.random.default_rng(1).integers(60, 180, (16, 20, channels), dtype=np.uint8)
    for strength in (0.0, 0.5, 1.0):
        for sign in (-1, 1):
            found = colour.as_array(colour.OPERATIONS[name](colour.as_picture(image), strength, sign))
            assert found.shape == image.shape and found.dtype == np.uint8
            if strength == 0.0 and name not in ("autocontrast", "equalize"):
                np.testing.assert_array_equal(found, image)
    assert (found != image).any() or name in ("identity", "colour")


def test_rand_augment_draws_all_operations():
    image, names = images(1)[0], set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        names.add(list(colour.OPERATIONS)[rng.integers(len(colour.OPERATIONS), size=1)[0]])
        colour.rand_augment(image, np.random.default_rng(seed), 1, 0.5)
    assert names == set(colour.OPERATIONS)
    np.testing.assert_array_equal(colour.rand_augment(image, np.random.default_rng(0), 0, 0.5), image)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), share=st.floats(0.1, 1.0))
def test_cutout_greys_a_square_and_nothing_else(seed, share):
    image = np.where(images(1, 20)[0] == colour.GREY, 0, images(1, 20)[0]).astype(np.uint8)
    found = colour.cutout(image, np.random.default_rng(seed), share)
    grey = (found == colour.GREY).all(-1)
    np.testing.assert_array_equal(found[~grey], image[~grey])
    rows, columns = np.flatnonzero(grey.any(1)), np.flatnonzero(grey.any(0))
    assert grey.sum() == len(rows) * len(columns) and max(len(rows), len(columns)) <= share * 20 + 1
    assert len(rows) >= share * 20 / 2 - 1.5  # centred inside, so at most half of it sticks out


def test_grey_is_the_luma_in_all_channels():
    found = colour.grey(images(1)[0])
    np.testing.assert_allclose(found, np.repeat(luma(images(1)[0].astype(np.float64))[..., None], 3, 2), atol=1)
    np.testing.assert_array_equal(colour.grey(images(1, channels=1)[0]), images(1, channels=1)[0])


def rngs(count, start=0):
    return [np.random.default_rng(start + i) for i in range(count)]


@pytest.mark.parametrize("count", [1, 4, 5])
def test_mixup_blends_the_two_rows_of_a_pair(count):
    batch = images(count)
    found, share = colour.mix(batch, rngs(count), 0.4, 0.0)
    assert share.dtype == np.float32 and found.dtype == np.uint8
    for i in range(count):
        partner = batch[i ^ 1] if i ^ 1 < count else batch[i]
        np.testing.assert_allclose(found[i], share[i] * batch[i].astype(np.float64) + (1 - share[i]) * partner, atol=0.51)
        assert share[i] == (share[i ^ 1] if i ^ 1 < count else 1.0)


def test_cutmix_puts_a_box_of_the_partner_in():
    batch = images(6, 20)
    found, share = colour.mix(batch, rngs(6), 0.0, 1.0)
    for i in range(6):
        own, other = (found[i] == batch[i]).all(-1), (found[i] == batch[i ^ 1]).all(-1)
        assert (own | other).all()
        np.testing.assert_allclose(own.mean(), share[i], atol=1e-6)
        rows, columns = np.flatnonzero((~own).any(1)), np.flatnonzero((~own).any(0))
        assert (~own).sum() == len(rows) * len(columns)


def test_both_kinds_of_mixture_are_drawn_about_equally():
    batch = images(200, 4)
    found, _ = colour.mix(batch, rngs(200), 1.0, 1.0)
    boxes = [((f == a) | (f == b)).all() for f, a, b in zip(found[::2], batch[::2], batch[1::2], strict=True)]
    assert 30 <= sum(boxes) <= 70


def test_a_pair_does_not_see_the_rest_of_its_batch():
    batch = images(6)
    whole, share = colour.mix(batch, rngs(6), 0.4, 1.0)
    half, other = colour.mix(batch[2:], rngs(4, 2), 0.4, 1.0)
    np.testing.assert_array_equal(whole[2:], half)
    np.testing.assert_array_equal(share[2:], other)


def test_the_transform_hands_on_the_shares():
    found = transforms.random_crop(list(images(4)), iter(rngs(4)), None, height=12, width=12, area=(), mixup=0.4)
    wanted = colour.mix(images(4), rngs(4), 0.4, 0.0)
    np.testing.assert_array_equal(found[""], wanted[0])
    np.testing.assert_array_equal(found["_share"], wanted[1])
