"""Random crops: where they lie, what they show, and what decides them."""

import functools
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from input_pipeline import batching, decode, transforms
from input_pipeline import crop as crops
from input_pipeline import image as image_ops
from input_pipeline.bad_records import BadRecord
from tests.input_pipeline.toys import toy_config

RATIO = (3 / 4, 4 / 3)


def photo(seed=0, height=90, width=120):
    """Smooth structure with some noise, as photographs have."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(coarse) + rng.normal(0, 4, (height, width, 3)), 0, 255).astype(np.uint8)


def jpeg(picture, **options):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=92, **options)
    return file.getvalue()


@settings(max_examples=200, deadline=None)
@given(
    height=st.integers(1, 300), width=st.integers(1, 300), seed=st.integers(0, 9),
    area=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted), ratio=st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)).map(sorted),
)  # fmt: skip
def test_a_box_lies_inside_and_has_the_shape_it_should(height, width, seed, area, ratio):
    box = crops.random_box(height, width, np.random.default_rng(seed), area, ratio)
    assert 0 <= box.top <= height - box.height and 0 <= box.left <= width - box.width and box.height >= 1 and box.width >= 1
    middle = (box.top, box.left) == ((height - box.height) // 2, (width - box.width) // 2)
    # Sides are rounded to whole pixels.
    as_drawn = area[0] * height * width <= (box.height + 0.5) * (box.width + 0.5)
    as_drawn &= area[1] * height * width >= (box.height - 0.5) * (box.width - 0.5)
    assert as_drawn or middle
    low, high = (box.width - 0.5) / (box.height + 0.5), (box.width + 0.5) / (box.height - 0.5)
    assert high >= ratio[0] and low <= ratio[1] or 1 in (box.height, box.width)


def test_boxes_are_spread_evenly():
    boxes = [crops.random_box(1000, 1000, np.random.default_rng(i), (0.2, 0.8), RATIO) for i in range(1500)]
    area = np.array([b.height * b.width / 1e6 for b in boxes])
    aspect = np.array([np.log(b.width / b.height) for b in boxes])
    place = np.array([b.top / max(1000 - b.height, 1) for b in boxes])
    # Wide boxes of a large area do not fit and are drawn again: that takes from the upper end of the area alone.
    for values, low, high in ((area[area < 0.7], 0.2, 0.7), (aspect, np.log(RATIO[0]), np.log(RATIO[1])), (place, 0, 1)):
        quantiles = np.quantile(values, [0.25, 0.5, 0.75])
        np.testing.assert_allclose((quantiles - low) / (high - low), [0.25, 0.5, 0.75], atol=0.06)


def test_an_image_of_another_shape_gives_its_middle():
    assert crops.random_box(10, 1000, np.random.default_rng(0), (0.9, 1.0), RATIO) == (0, (1000 - 13) // 2, 10, 13)
    assert crops.random_box(1000, 10, np.random.default_rng(0), (0.9, 1.0), RATIO) == ((1000 - 13) // 2, 0, 13, 10)


@pytest.mark.parametrize("kernel", sorted(crops.FILTERS))
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(32, 32), (24, 60), (150, 130)])
def test_resampling_is_pillow_s(kernel, channels, size):
    picture, box = photo()[..., :channels], crops.Box(7, 11, 70, 91)
    found = crops.resample(picture, box, *size, kernel).astype(int)
    wanted = image_ops.resize(picture[7:77, 11:102], *size, kernel=kernel).astype(int)
    assert found.shape == (*size, channels) and np.abs(found - wanted).max() <= 3 and np.abs(found - wanted).mean() < 0.3


def test_a_box_of_the_right_size_is_only_cut():
    np.testing.assert_array_equal(crops.resample(photo(), crops.Box(3, 5, 40, 50), 40, 50, "bicubic"), photo()[3:43, 5:55])


@pytest.mark.parametrize("turn", [1, 6])
@pytest.mark.parametrize(("spare", "most"), [(1.0, 8.0), (2.0, 2.0)])
def test_a_large_jpeg_decoded_small_shows_the_same_part(spare, most, turn):
    exif = Image.Exif()
    exif[decode.ORIENTATION] = turn
    data, box = jpeg(photo(0, 720, 960), exif=exif), crops.Box(61, 83, 500, 560)
    whole, small = (crops.cut(decode.ImageFile(data), box, 64, 72, 3, "bicubic", s).astype(int) for s in (0.0, spare))
    assert whole.shape == small.shape == (64, 72, 3)
    error = np.abs(whole - small).mean()
    assert 0 < error < most
    moved = crops.cut(decode.ImageFile(data), box._replace(left=box.left + 16), 64, 72, 3, "bicubic").astype(int)
    assert error < 0.7 * np.abs(whole - moved).mean()


def train(values, seeds=None, **options):
    rngs = [np.random.default_rng(i) for i in (seeds or range(len(values)))]
    return transforms.random_crop(values, iter(rngs), None, **(dict(height=24, width=20) | options))


def test_files_and_their_pixels_give_the_same():
    files = [jpeg(photo(i, 60 + i, 80)) for i in range(3)]
    a, b = (train(values, flip=0.5, jitter=(0.3, 0.3, 0.3, 0.1))[""] for values in (files, [decode.pixels(f) for f in files]))
    np.testing.assert_array_equal(a, b)
    assert a.shape == (3, 24, 20, 3) and a.dtype == np.uint8


def test_a_row_depends_on_its_own_stream_alone():
    files, options = (
        [jpeg(photo(i)) for i in range(4)],
        dict(area=(0.3, 1.0), flip=0.5, jitter=(0.4,) * 3 + (0.1,), rand_augment=2, cutout=0.3),
    )
    whole = train(files, **options)[""]
    for i in range(4):
        np.testing.assert_array_equal(train(files[i : i + 1], [i], **options)[""][0], whole[i])
    assert np.abs(train(files, [4, 5, 6, 7], **options)[""].astype(int) - whole).mean() > 3


def test_the_whole_image_without_a_crop():
    (found,) = train([photo()], area=())[""]
    assert np.abs(found.astype(int) - image_ops.resize(photo(), 24, 20)).mean() < 0.3


def test_a_flip_changes_sides():
    plain, flipped = (train([photo()], area=(), flip=share)[""][0] for share in (0.0, 1.0))
    np.testing.assert_array_equal(plain[:, ::-1], flipped)


@pytest.mark.parametrize("crop", [True, False])
def test_evaluation_is_the_resize(crop):
    values = [jpeg(photo(i, 50 + 10 * i)) for i in range(3)]
    found = transforms.random_crop(values, None, None, height=24, width=24, crop=crop, flip=1.0, cutout=0.9, mixup=1.0)
    assert list(found) == [""]
    for image, value in zip(found[""], values, strict=True):
        np.testing.assert_array_equal(image, image_ops.resize(decode.pixels(value, 3), 24, 24, crop))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(kernel="lanczos"), "options.kernel is 'lanczos'; set it to one of: bicubic, bilinear"),
        (dict(channels=4), "options.channels is 4; set it to one of: 1, 3"),
    ],
)
def test_an_option_out_of_its_choices_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        train([photo()], **options)
    with pytest.raises(ValueError, match="options.centre is 'up'"):
        transforms.resize([photo()], None, None, centre="up")


def test_what_is_no_image_is_an_error():
    for value in (photo().astype(np.float32), photo()[..., 0], "photo.jpg", None):
        with pytest.raises(TypeError, match="bytes of a file or uint8"):
            train([value])


class Files:
    """Photographs as bytes, some of them broken."""

    counts = {"id": 12}

    def __init__(self, broken=()):
        self.broken = broken

    def __len__(self):
        return 12

    @functools.cache  # noqa: B019
    def __getitem__(self, i):
        data = jpeg(photo(i, 40, 60))
        return {"image": data[:700] if i in self.broken else data, "id": i}


def test_a_broken_file_is_replaced_by_its_successor():
    data = toy_config(transforms=dict(image=dict(name="random_crop", options=dict(height=16, width=16))), max_bad_fraction=1.0)
    seen = []
    with (
        batching.batches(data, {"main": Files()}, None, seed=0) as good,
        batching.batches(data, {"main": Files(broken=(3, 7))}, None, seed=0, on_bad=seen.append) as some,
    ):
        for _ in range(3):
            whole, patched = next(good), next(some)
            same = ~np.isin(whole["record"], (3, 7))
            np.testing.assert_array_equal(whole["image"][same], patched["image"][same])
            np.testing.assert_array_equal(patched["record"], np.where(same, whole["record"], whole["record"] + 1))
    assert {entry["record"] for entry in seen} == {3, 7} and {entry["kind"] for entry in seen} == {"truncated"}


def test_the_row_of_a_broken_file_is_named():
    with pytest.raises(BadRecord, match="damaged JPEG") as caught:
        transforms.resize([jpeg(photo()), jpeg(photo())[:900], jpeg(photo()), b""], None, None)
    assert [(bad.row, bad.kind) for bad in (caught.value, *caught.value.more)] == [(1, "truncated"), (3, "empty")]


def test_a_batch_with_broken_files_is_made_twice(monkeypatch):
    data = toy_config(
        transforms=dict(image=dict(name="random_crop", options=dict(height=16, width=16))), max_bad_fraction=1.0, shuffle=False
    )
    made = []
    monkeypatch.setattr(crops, "cut", lambda file, box, height, width, *rest: made.append(file) or np.zeros((height, width, 3), np.uint8))
    # Headers are enough to find these.
    files = Files()
    monkeypatch.setattr(Files, "__getitem__", lambda self, i: {"image": b"none" if i in (1, 4, 6) else jpeg(photo(i, 40, 60)), "id": i})
    with batching.batches(data, {"main": files}, None, seed=0) as rows:
        batch = next(rows)
    np.testing.assert_array_equal(batch["record"], [0, 2, 2, 3, 5, 5, 7, 7])
    np.testing.assert_array_equal(batch["bad"], [0, 1, 0, 0, 1, 0, 1, 0])
    assert len(made) == 5 + 8
