"""Files of images: what is in them comes out, and what is wrong with them has a name."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from input_pipeline import decode
from input_pipeline.bad_records import KINDS, BadRecord

LOSSLESS = {"PNG": {}, "WEBP": dict(lossless=True, exact=True), "BMP": {}, "TIFF": {}, "GIF": {}}
LOSSY = {"JPEG": dict(quality=90), "WEBP": dict(quality=90), "AVIF": dict(quality=90)}


def smooth(height=20, width=30):
    """A picture that JPEG keeps within a few values."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([255 * rows / height, 255 * columns / width, 128 + 0 * rows], -1).astype(np.uint8)


def written(picture, kind, **options):
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture[..., 0] if picture.shape[-1:] == (1,) else picture)
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", sorted(LOSSLESS))
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_files_come_back(kind, channels):
    picture = smooth()[..., :channels]
    if kind == "GIF":
        picture = picture // 64 * 64  # at most 256 colours
    if kind == "WEBP" and channels == 1:
        picture = np.repeat(picture, 3, -1)  # knows no grey
    assert np.abs(decode.pixels(written(picture, kind, **LOSSLESS[kind])).astype(int) - picture).max() == 0


@pytest.mark.parametrize("kind", sorted(LOSSY))
def test_lossy_files_come_back_nearly(kind):
    found = decode.pixels(written(smooth(), kind, **LOSSY[kind]))
    assert found.dtype == np.uint8 and found.shape == (20, 30, 3)
    assert np.abs(found.astype(int) - smooth()).mean() < 3


@pytest.mark.parametrize("options", [{}, dict(progressive=True), dict(subsampling=0), dict(subsampling=1), dict(quality=20)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_is_what_pillow_reads(mode, options):
    data = written(Image.fromarray(smooth(37, 45)).convert(mode), "JPEG", **options)
    for channels in (0, 1, 3):
        wanted = np.asarray(Image.open(io.BytesIO(data)).convert({0: mode, 1: "L", 3: "RGB"}[channels]))
        np.testing.assert_array_equal(decode.pixels(data, channels), wanted.reshape(37, 45, -1))


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_exif_says_which_way_is_up(turn, kind):
    upright = smooth()
    # How a camera that was held so stores the scene: the inverse of the turn that viewers apply.
    stored = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.swapaxes(0, 1),
              6: np.rot90(upright, 1), 7: upright[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(upright, -1)}[turn]  # fmt: skip
    exif = Image.Exif()
    exif[decode.ORIENTATION] = turn
    file = decode.ImageFile(written(np.ascontiguousarray(stored), kind, exif=exif, **LOSSY.get(kind, {})))
    assert (file.height, file.width) == (20, 30)
    found = file.pixels()
    assert found.shape == upright.shape and np.abs(found.astype(int) - upright).mean() < (3 if kind == "JPEG" else 1e-9)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_notes_do_not_cost_an_image():
    data = written(smooth(), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff")
    assert decode.pixels(data).shape == (20, 30, 3)


def test_cmyk_becomes_rgb():
    picture = Image.fromarray(smooth()).convert("CMYK")
    found = decode.pixels(written(picture, "JPEG", quality=95))
    assert found.shape == (20, 30, 3) and np.abs(found.astype(int) - smooth()).mean() < 4


def test_sixteen_bits_keep_the_upper_eight():
    values = (np.arange(600).reshape(20, 30) * 109).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        found = decode.pixels(written(Image.fromarray(values), kind))
        np.testing.assert_array_equal(found[..., 0], values >> 8)
        assert decode.pixels(written(Image.fromarray(values), kind), 3).shape == (20, 30, 3)


def test_a_palette_becomes_its_colours():
    picture = Image.fromarray(smooth()).quantize(16)
    np.testing.assert_array_equal(decode.pixels(written(picture, "PNG")), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_white(mode):
    picture = np.dstack([smooth(), np.full((20, 30), 255, np.uint8)])
    picture[:10, :, :3], picture[:10, :, 3] = 7, 0
    image = Image.fromarray(picture)
    data = written(image.quantize(32) if mode == "P" else image.convert(mode), "PNG")
    found = decode.pixels(data)
    assert (found[:10] == 255).all() and not (found[10:] == 255).all()
    assert found.shape == (20, 30, 1 if mode == "LA" else 3)


def test_half_transparent_pixels_are_mixed_with_white():
    picture = np.full((4, 4, 4), 128, np.uint8)
    picture[..., :3] = 0
    assert np.abs(decode.pixels(written(picture, "PNG")).astype(int) - 127).max() <= 1


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_counts(kind):
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (40, 200)]
    data = written(frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {}))
    assert (decode.pixels(data) == 40).all()


@pytest.mark.parametrize("shrink", [2, 4, 8])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_can_be_decoded_small(shrink, channels):
    data = written(smooth(50, 73), "JPEG", quality=95)
    found = decode.ImageFile(data).pixels(channels, shrink)
    assert found.shape == (-(-50 // shrink), -(-73 // shrink), channels)
    box = Image.open(io.BytesIO(data)).convert("RGB" if channels == 3 else "L").reduce(shrink)
    # The last row and column stand for a part of a block.
    assert np.abs(found[:-1, :-1].astype(int) - np.asarray(box).reshape(found.shape)[:-1, :-1]).mean() < 3
    assert decode.ImageFile(written(smooth(50, 73), "PNG")).pixels(channels, shrink).shape == (50, 73, channels)


def bomb(width, height):
    """A PNG that claims any size in 57 bytes."""
    chunk = lambda name, body: struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("width", "height"), [(40_000, 40_000), (10_000, 9_000), (2**31 - 1, 1), (90_000_000, 1)])
def test_too_many_pixels_are_refused_before_decoding(width, height):
    with pytest.raises(BadRecord, match="pixels") as caught:
        decode.ImageFile(bomb(width, height))
    assert caught.value.kind == "too_large"


def test_too_many_scans_are_refused():
    data = written(smooth(), "JPEG", progressive=True)
    assert decode.pixels(data).shape == (20, 30, 3)
    with pytest.raises(BadRecord, match="scans") as caught:
        decode.pixels(data[:-2] + b"\xff\xda\x00\x02" * decode.MAX_SCANS)
    assert caught.value.kind == "too_large"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>404</html>", "image"),
        (b"\xff\xd8\xff\xe0", "image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "image"),
        (b"\x00" * 1000, "image"),
        (bomb(20, 20), "truncated"),
        (written(Image.fromarray(smooth().astype(np.float32)[..., 0]), "TIFF"), "image"),
    ],
)
def test_what_is_no_image_says_so(data, kind):
    with pytest.raises(BadRecord) as caught:
        decode.pixels(data)
    assert caught.value.kind == kind


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_file_that_ends_early_is_bad(kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    data = written(noise, kind)
    with pytest.raises(BadRecord) as caught:
        decode.pixels(data[: int(share * len(data))])
    assert caught.value.kind in ("truncated", "image")
    if kind == "JPEG":
        assert caught.value.kind == "truncated"


SEEDS = {kind: written(smooth(), kind, **options) for kind, options in (LOSSLESS | LOSSY | {"TIFF": dict(compression="tiff_lzw")}).items()}
SEEDS["progressive"] = written(smooth(), "JPEG", progressive=True)
SEEDS["palette"] = written(Image.fromarray(smooth()).quantize(16), "PNG")


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it mends
@settings(max_examples=400, deadline=None)
@given(kind=st.sampled_from(sorted(SEEDS)), data=st.data())
def test_damaged_files_are_images_or_bad_records(kind, data):
    """Flipped, cut, inserted and repeated bytes: an array of the promised size, or one of the known kinds; nothing else escapes."""
    check_damaged(SEEDS[kind], data)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_photographs_and_drawings_too(shared_data, data):
    folder, name = data.draw(st.sampled_from([("flickr8k_p/images", "*.jpg"), ("openmoji72/png", "*.png")]))
    check_damaged(sorted((shared_data / folder).glob(name))[data.draw(st.integers(0, 20))].read_bytes(), data)


def check_damaged(content, data):
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(damaged)))
        what, amount = data.draw(st.tuples(st.sampled_from("flip cut insert repeat".split()), st.integers(1, 40)))
        piece = data.draw(st.binary(min_size=1, max_size=amount))
        damaged[place : place + (0 if what in ("insert", "repeat") else len(piece) if what == "flip" else amount)] = (
            piece if what in ("flip", "insert") else damaged[place : place + amount] * (what == "repeat")
        )
    try:
        file = decode.ImageFile(bytes(damaged), max_pixels=1_000_000)
        found = file.pixels(3)
        assert found.dtype == np.uint8 and found.shape == (file.height, file.width, 3)
    except BadRecord as error:
        assert error.kind in KINDS and error.kind != "unreadable" and str(error)
