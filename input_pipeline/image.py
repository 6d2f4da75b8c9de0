"""Random changes to images that keep what they show; numpy and Pillow on the host.

Leaves the choice of a random stream for each record to `input_pipeline/batching.py`.
"""

import math

import numpy as np
from PIL import Image


def augment(
    image: np.ndarray, rng: np.random.Generator, *, shift: float = 0.0, scale: float = 0.0, rotate: float = 0.0, noise: float = 0.0
) -> np.ndarray:
    """Moves, scales and turns an image in one bilinear resample about its centre, then adds noise; empty corners are 0.

    Args:
        image: uint8 [H W C] with C = 1 or 3.
        rng: gives the same numbers of draws whatever the strengths, so that a strength can be changed alone.
        shift: largest move along each axis, as a share of the side.
        scale: largest change of size: factors lie between 1 / (1 + scale) and 1 + scale, even on a log scale.
        rotate: largest turn either way, in degrees.
        noise: standard deviation of what is added to each value, as a share of 255; results are clipped.

    Returns:
        uint8 [H W C]; the image itself where all strengths are 0.
    """
    u = rng.uniform(-1.0, 1.0, 4).tolist()
    if shift or scale or rotate:
        image = _affine(image, shift * u[0], shift * u[1], (1.0 + scale) ** u[2], math.radians(rotate * u[3]))
    if noise:
        # Rounds half up: a float that is cut instead would darken the image by half a level.
        noisy = rng.standard_normal(image.shape, np.float32)
        noisy *= 255.0 * noise
        noisy += image
        noisy += 0.5
        image = np.clip(noisy, 0.0, 255.0, out=noisy).astype(np.uint8)
    return image


def _affine(image: np.ndarray, right: float, down: float, factor: float, angle: float) -> np.ndarray:
    height, width, channels = image.shape
    # Pillow asks for the map from output to input coordinates: undo the move, then turn back and scale back about the centre.
    cos, sin = math.cos(angle) / factor, math.sin(angle) / factor
    x, y = width / 2, height / 2
    dx, dy = x + right * width, y + down * height
    inverse = (cos, sin, x - cos * dx - sin * dy, -sin, cos, y + sin * dx - cos * dy)
    picture = Image.fromarray(image[..., 0] if channels == 1 else image)
    moved = np.asarray(picture.transform((width, height), Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR))
    return moved.reshape(height, width, channels)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Area-aware bicubic resampling of uint8 [H W C] with C = 1 or 3."""
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC)).reshape(height, width, image.shape[-1])
