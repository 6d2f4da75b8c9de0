"""Images of a set: what is decoded, and what is said of files that are missing or damaged."""

import io

import numpy as np
import pytest
from PIL import Image

from input_pipeline import pictures
from input_pipeline.pictures import Pictures


def encoded(array, format="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format)
    return buffer.getvalue()


GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)
COLOUR = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def test_images_keep_their_colours_and_what_is_transparent_shows_white():
    clear = np.zeros((1, 2, 4), np.uint8)
    clear[0, 1, 3] = 255  # black below
    some = Pictures(["grey", "colour", "clear"], [encoded(GREY), encoded(COLOUR), encoded(clear)])
    np.testing.assert_array_equal(some[0], GREY[..., None])
    np.testing.assert_array_equal(some[1], COLOUR)
    assert some[2].tolist() == [[[255] * 3, [0] * 3]]


def test_slices_are_lists_and_parts_keep_their_names():
    some = Pictures(["a", "b", "c"], [encoded(GREY + i) for i in range(3)])
    assert [image[0, 0, 0] for image in some[1:]] == [1, 2] and some[-1][0, 0, 0] == 2 and len(list(some)) == 3
    part = some.take(np.array([2, 0]))
    assert part.names == ["c", "a"] and part[0][0, 0, 0] == 2
    np.testing.assert_array_equal(Pictures(["a"], [encoded(GREY)], inverted=True).take([0])[0], 255 - GREY[..., None])


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP"])
def test_damaged_images_are_counted_and_named(format):
    whole = encoded(COLOUR, format=format)
    some = Pictures(["a", "b", "c", "d"], [whole, whole[: len(whole) // 2], whole, b""])
    some[0]
    with pytest.raises(ValueError, match="2 of 4 images cannot be read: b, d; copy the set again"):
        some[1]
    assert Pictures(list("abcdefg"), [b"x"] * 7).broken() == list("abcdefg")
    with pytest.raises(ValueError, match=r"7 of 7 images cannot be read: a, b, c, d, e, \.\.\.;"):
        Pictures(list("abcdefg"), [b"x"] * 7)[0]


def test_missing_images_are_counted_and_named(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(GREY))
    assert len(pictures.from_folder(tmp_path, ["a.png"])) == 1
    with pytest.raises(ValueError, match=r"2 of 3 images are not in .*: b.png, c.png; set options.path"):
        pictures.from_folder(tmp_path, ["a.png", "b.png", "c.png"])
    with pytest.raises(ValueError, match="0 images with 0 names"):
        pictures.from_folder(tmp_path, [])
