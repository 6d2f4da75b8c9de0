"""Changes to images that keep what they show; numpy and Pillow on the host.

Leaves the choice of a random stream for each record to `input_pipeline/order.py`.
"""

import math
import statistics
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

# A standard normal in 256 equally likely steps: a byte from the generator becomes noise at a quarter of the time of an exact draw.
_STEPS = np.array([statistics.NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)])
_NORMAL = (_STEPS / _STEPS.std()).astype(np.float32)


def augment(
    images: Sequence[np.ndarray], rngs: Iterable[np.random.Generator], *,
    shift: float = 0.0, scale: float = 0.0, rotate: float = 0.0, noise: float = 0.0, keep_inside: bool = False,
) -> np.ndarray:  # fmt: skip
    """Moves, scales and turns each image in one bilinear resample about its centre, then adds noise; empty corners are 0.

    Args:
        images: uint8 [H W C] with C = 1 or 3, all of one shape.
        rngs: one for each image. The first four draws decide the geometry, so that one strength can be changed alone.
        shift: largest move along each axis, as a share of the side.
        scale: largest change of size: factors lie between 1 / (1 + scale) and 1 + scale, even on a log scale.
        rotate: largest turn either way, in degrees.
        noise: standard deviation of what is added to each value, as a share of 255; results are clipped.
        keep_inside: shorten a move that would cut off what is not 0, as an accent at the edge of a glyph's image; what is then
            larger than the image is centred. For drawings on 0: a photograph fills its image and would not move.

    Returns:
        uint8 [N H W C]; the images themselves where all strengths are 0.
    """
    moved, random_bytes = [], []
    for image, rng in zip(images, rngs, strict=True):
        right, down, size, turn = (2.0 * rng.random(4) - 1.0).tolist()
        if shift or scale or rotate:
            image = _affine(image, shift * right, shift * down, (1.0 + scale) ** size, math.radians(rotate * turn), keep_inside)
        moved.append(image)
        if noise:
            # Raw 64-bit words: a third of the time of rng.bytes, which draws 32 bits at a time.
            random_bytes.append(rng.bit_generator.random_raw(-(-image.size // 8)).tobytes()[: image.size])
    stacked = np.stack(moved)
    return _add_noise(stacked, np.frombuffer(b"".join(random_bytes), np.uint8).reshape(stacked.shape), noise) if noise else stacked


def _add_noise(images: np.ndarray, random_bytes: np.ndarray, noise: float) -> np.ndarray:
    noisy = np.take(np.rint((255.0 * noise) * _NORMAL).astype(np.int16), random_bytes)
    noisy += images
    return np.clip(noisy, 0, 255, out=noisy).astype(np.uint8)


def _affine(image: np.ndarray, right: float, down: float, factor: float, angle: float, keep_inside: bool) -> np.ndarray:
    height, width, channels = image.shape
    picture = _picture(image)
    x, y = width / 2, height / 2
    cos, sin = math.cos(angle), math.sin(angle)
    dx, dy = right * width, down * height
    box = picture.getbbox() if keep_inside else None
    if box is not None:
        corners = [(u - x, v - y) for u in (box[0], box[2]) for v in (box[1], box[3])]
        dx = _shorten(dx, [factor * (cos * u - sin * v) for u, v in corners], x)
        dy = _shorten(dy, [factor * (sin * u + cos * v) for u, v in corners], y)
    # Pillow asks for the map from output to input coordinates: undo the move, then turn and scale back about the centre.
    cos, sin, dx, dy = cos / factor, sin / factor, x + dx, y + dy
    inverse = (cos, sin, x - cos * dx - sin * dy, -sin, cos, y + sin * dx - cos * dy)
    moved = picture.transform((width, height), Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR)
    return np.frombuffer(moved.tobytes(), np.uint8).reshape(height, width, channels)


def _picture(image: np.ndarray) -> Image.Image:
    # Twice as fast as Image.fromarray, which matters at 32 px.
    return Image.frombuffer({1: "L", 3: "RGB"}[image.shape[2]], (image.shape[1], image.shape[0]), np.ascontiguousarray(image))


def _shorten(move: float, extent: list[float], half: float) -> float:
    """The move nearest to `move` that keeps coordinates `extent`, from the centre, within `half` of it."""
    least, most = -half - min(extent), half - max(extent)
    return (least + most) / 2 if least > most else min(max(move, least), most)


def resize(image: np.ndarray, height: int, width: int, crop: bool = False, kernel: str = "bicubic", centre: str = "floor") -> np.ndarray:
    """Resampling of uint8 [H W C] with C = 1 or 3 by Pillow, smoothed first where it shrinks.

    Args:
        image: of any size.
        height: of the result.
        width: of the result.
        crop: keep the aspect ratio and cut off what stands over on two sides, as CLIP does; else stretch.
        kernel: `bicubic` (CLIP, SigLIP) or `bilinear` (SigLIP 2).
        centre: what half a pixel that stands over becomes: `floor` as in transformers on Pillow, `round` (to even) as in torchvision.
    """
    if crop:
        tall, wide = image.shape[:2]
        rows, columns = (height, int(height * wide / tall)) if tall * width < wide * height else (int(width * tall / wide), width)
        half = {"floor": lambda over: over // 2, "round": lambda over: round(over / 2)}[centre]
        top, left = half(rows - height), half(columns - width)
        return np.ascontiguousarray(resize(image, rows, columns, kernel=kernel)[top : top + height, left : left + width])
    made = _picture(image).resize((width, height), {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[kernel])
    return np.asarray(made).reshape(height, width, image.shape[-1])
