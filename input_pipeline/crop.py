"""Random crops of photographs, as CLIP and SigLIP are trained with.

Leaves decoding to `input_pipeline/decode.py`, and sizes in evaluation, where every pixel counts, to `input_pipeline/image.py`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cykooz_resizer
import numpy as np

from input_pipeline.decode import ImageArray, ImageFile

# The kernels of Pillow by its names; both libraries widen them where an image shrinks.
FILTERS = {"bicubic": cykooz_resizer.FilterType.catmull_rom, "bilinear": cykooz_resizer.FilterType.bilinear}
PIXELS = {1: cykooz_resizer.PixelType.U8, 3: cykooz_resizer.PixelType.U8x3}
TRIES = 10
SHRINKS = (8, 4, 2)  # parts of a JPEG's sides that cost less than the whole


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: float
    left: float
    height: float
    width: float


def random_box(height: int, width: int, rng: np.random.Generator, area: Sequence[float], ratio: Sequence[float]) -> Box:
    """A box inside an image, of whole pixels, as torchvision's RandomResizedCrop draws it.

    Args:
        height: of the image.
        width: of the image.
        rng: for the draws, a varying number of them.
        area: least and greatest share of the image, drawn evenly.
        ratio: least and greatest width per height, drawn evenly on a log scale.

    Returns:
        The first of ten draws that fits, else the largest box in the middle whose ratio is allowed.
    """
    for _ in range(TRIES):
        size = height * width * rng.uniform(*area)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        wide, tall = round(math.sqrt(size * aspect)), round(math.sqrt(size / aspect))
        if 0 < wide <= width and 0 < tall <= height:
            return Box(int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1)), tall, wide)
    tall = height if width >= ratio[0] * height else max(round(width / ratio[0]), 1)
    wide = width if width <= ratio[1] * height else max(round(height * ratio[1]), 1)
    return Box((height - tall) // 2, (width - wide) // 2, tall, wide)


def cut(file: ImageFile | ImageArray, box: Box, height: int, width: int, channels: int, kernel: str, spare: float = 0.0) -> np.ndarray:
    """The box of an image as uint8 [height width channels].

    Args:
        file: not yet decoded.
        box: of whole pixels.
        height: of the result.
        width: of the result.
        channels: 1 or 3.
        kernel: one of `FILTERS`.
        spare: above 0, a JPEG is decoded at a half, a quarter or an eighth where the box is then still `spare` times as large as the
            result along both sides; at 2 photographs differ by 0.3 of 255 on average, at 1 by a few times as much.

    Raises:
        BadRecord: a file that cannot be decoded.
    """
    fits = (s for s in SHRINKS if spare > 0 and min(box.height / height, box.width / width) >= s * spare)
    array = file.pixels(channels, next(fits, 1))
    down, right = array.shape[0] / file.height, array.shape[1] / file.width
    return resample(array, Box(box.top * down, box.left * right, box.height * down, box.width * right), height, width, kernel)


def resample(image: np.ndarray, box: Box, height: int, width: int, kernel: str) -> np.ndarray:
    """A box of uint8 [H W C] at another size, as Pillow's `crop` and `resize` give it, but for rounding.

    On photographs the mean difference to Pillow, which also rounds between its two passes, is 0.15 of 255.
    """
    top, left = math.floor(box.top), math.floor(box.left)
    bottom, right = min(math.ceil(box.top + box.height), image.shape[0]), min(math.ceil(box.left + box.width), image.shape[1])
    part = image[top:bottom, left:right]
    if part.shape[:2] == (box.height, box.width) == (height, width):
        return part
    options = cykooz_resizer.ResizeOptions(resize_alg=cykooz_resizer.ResizeAlg.convolution(FILTERS[kernel]), use_alpha=False)
    if part.shape[:2] != (box.height, box.width):  # a decoder that shrinks leaves parts of pixels
        tall, wide = min(box.height, image.shape[0] - box.top), min(box.width, image.shape[1] - box.left)
        options.crop_box = cykooz_resizer.CropBox(box.left - left, box.top - top, wide, tall)
    made = cykooz_resizer.ImageData(width, height, PIXELS[image.shape[2]])
    source = cykooz_resizer.ImageData(part.shape[1], part.shape[0], PIXELS[image.shape[2]], part.tobytes())
    cykooz_resizer.Resizer().resize(source, made, options)
    return np.frombuffer(made.rust_image.buffer(), np.uint8).reshape(height, width, image.shape[2])
