"""Transforms of images, in arrays or files; what a transform is, `input_pipeline/transforms.py` says."""

from collections.abc import Callable, Sequence

import numpy as np

from input_pipeline import colour, decode
from input_pipeline import crop as crops
from input_pipeline import image as image_ops
from input_pipeline import patches as naflex
from input_pipeline.bad_records import BadRecord
from input_pipeline.order import Rngs
from input_pipeline.tokenize import Tokenizer


def augment(
    values: Sequence[np.ndarray], rngs: Rngs, tokenizer: Tokenizer | None, *,
    shift: float = 0.0, scale: float = 0.0, rotate: float = 0.0, noise: float = 0.0, keep_inside: bool = False,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Images, changed as `image.augment` says; unchanged in evaluation."""
    if rngs is None:
        return stack(values, rngs, tokenizer)
    return {"": image_ops.augment(values, rngs, shift=shift, scale=scale, rotate=rotate, noise=noise, keep_inside=keep_inside)}


def resize(
    values: Sequence[np.ndarray | bytes], rngs: Rngs, tokenizer: Tokenizer | None, *,
    height: int = 32, width: int = 32, channels: int = 0, crop: bool = False, kernel: str = "bicubic", centre: str = "floor",
) -> dict[str, np.ndarray]:  # fmt: skip
    """Images of any sizes, in arrays or files, brought to one: stretched, or with `crop` their middle.

    `channels` is 3 for RGB, 1 for grey, or 0 where all images have the same; the rest is as `image.resize` says.

    Raises:
        BadRecord: a file that cannot be decoded.
    """
    _check_choices(kernel=(kernel, crops.FILTERS), centre=(centre, ("floor", "round")), channels=(channels, (0, 1, 3)))
    make = lambda value: image_ops.resize(decode.pixels(value, channels), height, width, crop, kernel, centre)
    return stack(_each(make, values), rngs, tokenizer)


def random_crop(
    values: Sequence[np.ndarray | bytes], rngs: Rngs, tokenizer: Tokenizer | None, *,
    height: int = 224, width: int = 224, channels: int = 3, area: tuple = (0.9, 1.0), ratio: tuple = (3 / 4, 4 / 3),
    kernel: str = "bicubic", spare: float = 0.0, flip: float = 0.0, jitter: tuple = (0.0, 0.0, 0.0, 0.0), jitter_share: float = 0.8,
    grey_share: float = 0.0, rand_augment: int = 0, strength: float = 0.33, cutout: float = 0.0, mixup: float = 0.0, cutmix: float = 0.0,
    crop: bool = False, centre: str = "floor",
) -> dict[str, np.ndarray]:  # fmt: skip
    """Random parts of photographs, in arrays or files, at one size; in evaluation, what `resize` makes of them.

    The defaults are open_clip's training; `area=()` takes the whole image, stretched, as SigLIP's training does. Draws come in the
    order of the options, so that one at the end can be changed alone.

    Args:
        values: uint8 arrays, or bytes of files.
        rngs: one for each while training.
        tokenizer: not used.
        height: of the result.
        width: of the result.
        channels: 3 for RGB, 1 for grey.
        area: least and greatest share of the image, or () for all of it.
        ratio: least and greatest width per height of the part.
        kernel: `bicubic` or `bilinear`.
        spare: above 0, large JPEGs are decoded small, see `crop.cut`: faster, and not the same pixels.
        flip: how often left and right change places.
        jitter: strengths of brightness, contrast, saturation and hue.
        jitter_share: how often they change, where one is above 0.
        grey_share: how often colours are lost.
        rand_augment: operations of RandAugment.
        strength: of these, 0 to 1.
        cutout: side of the square that is greyed, as a share of the shorter side.
        mixup: of each pair of rows; `_share` then says how much of a row is its own, see `colour.mix`.
        cutmix: the same with boxes.
        crop: in evaluation, cut off what stands over; else stretch.
        centre: in evaluation, see `image.resize`.

    Raises:
        BadRecord: a file that cannot be decoded.
    """
    if rngs is None:
        size = dict(height=height, width=width, channels=channels)
        return resize(values, None, tokenizer, **size, crop=crop, kernel=kernel, centre=centre)
    _check_choices(kernel=(kernel, crops.FILTERS), channels=(channels, (1, 3)))

    def make(value: np.ndarray | bytes, rng: np.random.Generator) -> np.ndarray:
        file = decode.opened(value)
        box = crops.random_box(file.height, file.width, rng, area, ratio) if area else crops.Box(0, 0, file.height, file.width)
        image = crops.cut(file, box, height, width, channels, kernel, spare)
        image = image[:, ::-1] if flip and rng.random() < flip else image
        image = colour.jitter(image, rng, *jitter) if any(jitter) and rng.random() < jitter_share else image
        image = colour.grey(image) if grey_share and rng.random() < grey_share else image
        image = colour.rand_augment(image, rng, rand_augment, strength) if rand_augment else image
        return colour.cutout(image, rng, cutout) if cutout else image

    rngs = list(rngs)
    images = np.stack(_each(make, values, rngs))
    return dict(zip(("", "_share"), colour.mix(images, rngs, mixup, cutmix), strict=True)) if mixup or cutmix else {"": images}


def patches(
    values: Sequence[np.ndarray | bytes], rngs: Rngs, tokenizer: Tokenizer | None, *,
    patch: int = 16, budget: int = 256, channels: int = 3, kernel: str = "bilinear", flip: float = 0.0,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Images of any sizes, in arrays or files, as patches with their places, see `patches.padded`, and a mask that is False on padding.

    Args:
        values: uint8 arrays, or bytes of files.
        rngs: one for each while training.
        tokenizer: not used.
        patch: side of a patch in pixels.
        budget: patches of an image at most; it is scaled so that its shape nearly stays and they are nearly used up.
        channels: 3 for RGB, 1 for grey.
        kernel: `bilinear` as SigLIP 2, or `bicubic`.
        flip: how often left and right change places while training.

    Raises:
        BadRecord: a file that cannot be decoded.
    """
    _check_choices(kernel=(kernel, crops.FILTERS), channels=(channels, (1, 3)))

    def make(value: np.ndarray | bytes, rng: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray]:
        image = decode.pixels(value, channels)
        rows, columns = naflex.grid(*image.shape[:2], patch, budget)
        image = image_ops.resize(image, rows * patch, columns * patch, kernel=kernel)
        return naflex.padded(image[:, ::-1] if rng is not None and flip and rng.random() < flip else image, patch, budget)

    made = _each(make, values, list(rngs) if rngs is not None else [None] * len(values))
    return dict(zip(("", "_mask"), map(np.stack, zip(*made, strict=True)), strict=True))


def stack(values: Sequence[np.ndarray], rngs: Rngs, tokenizer: Tokenizer | None) -> dict[str, np.ndarray]:
    """Arrays of one shape, as they are."""
    return {"": np.stack(values)}


def _each(make: Callable, *columns: Sequence) -> list:
    """What `make` makes of each row; what cannot be read says which rows it was, all at once."""
    made, bad = [], []
    for row, items in enumerate(zip(*columns, strict=True)):
        try:
            made.append(make(*items))
        except BadRecord as error:
            bad.append(BadRecord(str(error), error.kind, row=row))
    if bad:
        raise BadRecord(str(bad[0]), bad[0].kind, row=bad[0].row, more=bad[1:])
    return made


def _check_choices(**options: tuple) -> None:
    for name, (value, choices) in options.items():
        if value not in choices:
            raise ValueError(f"options.{name} is {value!r}; set it to one of: {', '.join(map(str, choices))}.")
