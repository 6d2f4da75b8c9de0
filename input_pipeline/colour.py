"""Changes to what a crop looks like: colour jitter, RandAugment, cutout, and mixtures of two images of a batch.

Leaves the choice of a random stream for each record to `input_pipeline/order.py`.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

# One step each: `op(picture, strength in 0-1, sign of -1 or 1)`; ranges as in torchvision's RandAugment at its greatest magnitude.
OPERATIONS: Mapping[str, Callable[[Image.Image, float, int], Image.Image]] = {
    "identity": lambda p, m, s: p,
    "shear_x": lambda p, m, s: _affine(p, (1, 0.3 * m * s, 0, 0, 1, 0)),
    "shear_y": lambda p, m, s: _affine(p, (1, 0, 0, 0.3 * m * s, 1, 0)),
    "translate_x": lambda p, m, s: _affine(p, (1, 0, 0.45 * m * s * p.width, 0, 1, 0)),
    "translate_y": lambda p, m, s: _affine(p, (1, 0, 0, 0, 1, 0.45 * m * s * p.height)),
    "rotate": lambda p, m, s: p.rotate(30 * m * s, Image.Resampling.BILINEAR, fillcolor=_grey(p)),
    "brightness": lambda p, m, s: ImageEnhance.Brightness(p).enhance(1 + 0.9 * m * s),
    "colour": lambda p, m, s: ImageEnhance.Color(p).enhance(1 + 0.9 * m * s),
    "contrast": lambda p, m, s: ImageEnhance.Contrast(p).enhance(1 + 0.9 * m * s),
    "sharpness": lambda p, m, s: ImageEnhance.Sharpness(p).enhance(1 + 0.9 * m * s),
    "posterize": lambda p, m, s: ImageOps.posterize(p, 8 - round(4 * m)),
    "solarize": lambda p, m, s: ImageOps.solarize(p, 255 * (1 - m)),
    "autocontrast": lambda p, m, s: ImageOps.autocontrast(p),
    "equalize": lambda p, m, s: ImageOps.equalize(p),
}
GREY = 128  # what a shift uncovers and cutout leaves: about the mean of photographs


def jitter(image: np.ndarray, rng: np.random.Generator, brightness: float, contrast: float, saturation: float, hue: float) -> np.ndarray:
    """Brightness, contrast, saturation and hue in a random order, as torchvision's ColorJitter does on Pillow images.

    Args:
        image: uint8 [H W C] with C = 1 or 3.
        rng: for the order and the four factors, always as many draws.
        brightness: factors lie between 1 - x and 1 + x, not below 0; 0 leaves it alone.
        contrast: the same.
        saturation: the same.
        hue: largest turn either way, as a share of the circle, up to 0.5.
    """
    order, draws = rng.permutation(4).tolist(), rng.random(4).tolist()
    factor = lambda i, most: (lambda low, high: low + draws[i] * (high - low))(max(0.0, 1 - most), 1 + most)
    picture = as_picture(image)
    for i in order:
        if i < 3 and (most := (brightness, contrast, saturation)[i]):
            enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[i]
            picture = enhance(picture).enhance(factor(i, most))
        elif i == 3 and hue and picture.mode == "RGB":
            picture = _turn_hue(picture, (2 * draws[3] - 1) * hue)
    return as_array(picture)


def rand_augment(image: np.ndarray, rng: np.random.Generator, count: int, strength: float) -> np.ndarray:
    """`count` operations drawn from `OPERATIONS`, all at one strength.

    Args:
        image: uint8 [H W C] with C = 1 or 3.
        rng: for operations and signs.
        count: of operations; papers use 2.
        strength: 0 to 1; magnitude 10 of 30 is 0.33.

    Source: Cubuk et al. 2020, arXiv:1909.13719; ranges as in torchvision.
    """
    names, picture = list(OPERATIONS), as_picture(image)
    for number, sign in zip(rng.integers(len(names), size=count).tolist(), rng.choice((-1, 1), count).tolist(), strict=True):
        picture = OPERATIONS[names[number]](picture, strength, sign)
    return as_array(picture)


def cutout(image: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Greys a square of `share` of the shorter side, centred anywhere, so that it may stick out (arXiv:1708.04552)."""
    height, width = image.shape[:2]
    half = share * min(height, width) / 2
    row, column = rng.random(2) * (height, width)
    made = image.copy()
    made[max(round(row - half), 0) : round(row + half), max(round(column - half), 0) : round(column + half)] = GREY
    return made


def grey(image: np.ndarray) -> np.ndarray:
    """The luma in all channels."""
    return image if image.shape[2] == 1 else np.repeat(as_array(as_picture(image).convert("L")), 3, 2)


def mix(images: np.ndarray, rngs: Sequence[np.random.Generator], mixup: float, cutmix: float) -> tuple[np.ndarray, np.ndarray]:
    """Mixes rows 2i and 2i + 1 of a batch into each other: as a blend, or with a box of the one put into the other.

    Fixed pairs keep the batch the same for any number of processes with an even share of it. A row left over stays as it is.

    Args:
        images: uint8 [N H W C].
        rngs: one for each; that of the first of a pair draws for both.
        mixup: both shares of the Beta distribution that the blend comes from; 0 blends nothing.
        cutmix: the same for the area of the box; where both are above 0, each pair draws one of them evenly.

    Returns:
        Images, and the share float32 [N] of a row's own image in it; its partner, `row ^ 1`, has the rest.

    Source: arXiv:1710.09412, arXiv:1905.04899.
    """
    made, share = images.copy(), np.ones(len(images), np.float32)
    for i in range(0, len(images) - 1, 2):
        rng, pair = rngs[i], images[i : i + 2]
        blend = rng.random() < (0.5 if mixup and cutmix else 1.0 if mixup else 0.0)
        own = float(rng.beta(*(mixup if blend else cutmix,) * 2))
        if blend:
            made[i : i + 2] = np.rint(own * pair.astype(np.float32) + (1 - own) * pair[::-1])
        else:
            rows, columns = _box(rng, *images.shape[1:3], 1 - own)
            made[i : i + 2, rows, columns] = pair[::-1, rows, columns]
            own = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (images.shape[1] * images.shape[2])
        share[i : i + 2] = own
    return made, share


def as_picture(image: np.ndarray) -> Image.Image:
    """A Pillow image of uint8 [H W C] with C = 1 or 3."""
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def as_array(picture: Image.Image) -> np.ndarray:
    """uint8 [H W C] of a Pillow image."""
    return np.asarray(picture).reshape(picture.height, picture.width, -1)


def _box(rng: np.random.Generator, height: int, width: int, area: float) -> tuple[slice, slice]:
    """A box with the image's shape, centred anywhere; what sticks out is lost."""
    spans = []
    for side, centre in zip((height, width), rng.random(2).tolist(), strict=True):
        half = side * math.sqrt(area) / 2
        spans.append(slice(max(round(centre * side - half), 0), min(round(centre * side + half), side)))
    return spans[0], spans[1]


def _affine(picture: Image.Image, matrix: tuple) -> Image.Image:
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=_grey(picture))


def _grey(picture: Image.Image) -> int | tuple[int, int, int]:
    return GREY if picture.mode == "L" else (GREY,) * 3


def _turn_hue(picture: Image.Image, turn: float) -> Image.Image:
    hue, saturation, value = picture.convert("HSV").split()
    turned = (np.asarray(hue).astype(np.int16) + int(turn * 255)) % 256
    return Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), saturation, value)).convert("RGB")
