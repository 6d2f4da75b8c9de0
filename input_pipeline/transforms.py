"""What happens to one view of a batch between a source and the device, by the name a config uses.

A transform is `fn(values, rngs, tokenizer, *, options) -> {suffix: array [N ...]}`: the list of raw values of one view becomes arrays
named view + suffix. `rngs` yields one generator per value while training; evaluation passes None, which must change nothing at random.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from core.config import ConfigError, bind, check_section, choose
from input_pipeline import colour, decode, packing
from input_pipeline import crop as crops
from input_pipeline import image as image_ops
from input_pipeline import patches as naflex
from input_pipeline.bad_records import BadRecord
from input_pipeline.tokenize import Tokenizer
from input_pipeline.tokenize.clean import as_text

Rngs = Iterable[np.random.Generator] | None


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


def tokenize(
    values: Sequence[str | bytes] | Sequence[Sequence[str | bytes]], rngs: Rngs, tokenizer: Tokenizer | None, *,
    length: int = 32, buckets: tuple = (), prompt: str = "", pool_prompt: bool = True, truncate_side: str = "right",
) -> dict[str, np.ndarray]:  # fmt: skip
    """Texts as token ids [N T], lists of K texts as [N K T], each with a mask that is False on padding.

    T is the smallest of `buckets` that holds the longest text of the batch, or `length`: a compiled step serves one width, so a few
    buckets cost a few compilations and save the padding of short batches.

    Args:
        values: texts, or lists of equally many.
        rngs: not used.
        tokenizer: of the run.
        length: tokens at most, those around the text and of the prompt included; longer texts are cut.
        buckets: smaller widths, rising.
        prompt: goes before every text.
        pool_prompt: else `_pool_mask` is False also on the prompt and what stands before it, for poolings that leave it out.
        truncate_side: the side from which too long a text loses tokens, `right` or `left`.

    Raises:
        ValueError: options that do not fit each other, or lists of different lengths.
    """
    if tokenizer is None:
        raise ConfigError("texts need a tokenizer; set config.data.tokenizer to dict(name='bpe', options=dict(vocab_size=1024)).")
    before = tokenizer.prompt_tokens(prompt) if prompt else len(tokenizer.frame.prefix)
    _check_lengths(length, buckets, before, prompt, truncate_side)
    lists = bool(values) and isinstance(values[0], (list, tuple))
    if lists and len({len(texts) for texts in values}) > 1:
        raise ValueError(f"rows hold {sorted({len(texts) for texts in values})} texts; one batch needs the same number in every row.")
    texts = [text for texts in values for text in texts] if lists else values
    ids, mask = tokenizer([prompt + as_text(text) for text in texts], length, buckets=buckets, truncate_side=truncate_side)
    arrays = {"": ids, "_mask": mask}
    if not pool_prompt:
        arrays["_pool_mask"] = mask & (np.arange(mask.shape[1]) >= before if prompt else True)
    return {name: array.reshape(len(values), -1, array.shape[-1]) for name, array in arrays.items()} if lists else arrays


def pack(
    values: Sequence[str | bytes] | Sequence[Sequence[str | bytes]], rngs: Rngs, tokenizer: Tokenizer | None, *,
    length: int = 32, group: int = 64, rows: int = 48, prompt: str = "",
) -> dict[str, np.ndarray]:  # fmt: skip
    """While training, texts as `packing.pack` puts several into a row; in evaluation each has a row of its own, as `tokenize` makes it.

    Raises:
        ValueError: options that do not fit each other.
    """
    if rngs is None or tokenizer is None:
        return tokenize(values, None, tokenizer, length=length, prompt=prompt)
    _check_lengths(length, (), tokenizer.prompt_tokens(prompt) if prompt else 0, prompt, "right")
    return packing.pack(values, rngs, tokenizer, length=length, group=group, rows=rows, prompt=prompt)


def mask_tokens(
    values: Sequence[str | bytes], rngs: Rngs, tokenizer: Tokenizer | None, *,
    length: int = 128, buckets: tuple = (), mask_id: int = -1, share: float = 0.15, keep: float = 0.1, replace: float = 0.1,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Token ids of which some are hidden, anew in each epoch, and `_target`: what they were, or -1 where nothing is asked.

    In evaluation nothing is hidden. What a row hides does not depend on the width of its batch.

    Args:
        values: texts.
        rngs: one for each while training.
        tokenizer: of the run.
        length: tokens at most, those around the text included.
        buckets: smaller widths, rising.
        mask_id: what stands for a hidden token: 103 for BERT's vocabulary; a vocabulary trained by the run has none, so that its size
            will do, in a table with a row more.
        share: of a text's own tokens that are asked for; each is drawn alone.
        keep: of these, stay as they are.
        replace: of these, become another token of the vocabulary; the rest is hidden.

    Raises:
        ValueError: no mask_id, or options that do not fit each other.

    Source: Devlin et al. 2019, arXiv:1810.04805, section 3.1; drawn in each epoch as in Liu et al. 2019, arXiv:1907.11692.
    """
    if mask_id < 0 or not (0 < share <= 1 and 0 <= keep <= 1 and 0 <= replace <= 1 - keep):
        raise ValueError(
            f"options are mask_id {mask_id}, share {share}, keep {keep}, replace {replace}; set mask_id to a token, 103 for BERT's."
        )
    arrays = tokenize(values, None, tokenizer, length=length, buckets=buckets)
    if rngs is None:
        return arrays
    ids, target = arrays[""], np.full_like(arrays[""], -1)
    before, after = len(tokenizer.frame.prefix), len(tokenizer.frame.suffix)
    for row, rng, count in zip(range(len(ids)), rngs, arrays["_mask"].sum(1).tolist(), strict=True):
        own = slice(before, max(count - after, before))
        asked, fate, other = rng.random((3, own.stop - own.start))
        other = (other * tokenizer.vocab_size).astype(np.int32)
        asked, text = asked < share, ids[row, own].copy()
        target[row, own] = np.where(asked, text, -1)
        ids[row, own] = np.where(asked & (fate >= keep), np.where(fate < keep + replace, other, mask_id), text)
    return arrays | {"_target": target}


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


def _check_lengths(length: int, buckets: Sequence[int], before: int, prompt: str, truncate_side: str) -> None:
    if truncate_side not in ("right", "left") or (truncate_side == "left" and prompt):
        why = "which would cut the prompt away; set it to 'right'" if prompt else "set it to 'right' or 'left'"
        raise ValueError(f"options.truncate_side is {truncate_side!r}; {why}.")
    if list(buckets) != sorted({int(b) for b in buckets if 0 < b <= length}):
        raise ValueError(f"options.buckets is {tuple(buckets)}; set it to rising widths of at most options.length, {length}, or to ().")
    if prompt and before >= length:
        raise ValueError(f"the prompt takes {before} of options.length = {length} tokens; set length to {2 * before} or more.")


TRANSFORMS = {
    "augment": augment,
    "mask_tokens": mask_tokens,
    "pack": pack,
    "patches": patches,
    "random_crop": random_crop,
    "resize": resize,
    "stack": stack,
    "tokenize": tokenize,
}


def bind_transforms(section: Mapping, key: str = "config.data.transforms") -> dict:
    """The bound transform of each view that `section` names.

    Raises:
        ConfigError: an unknown key, transform or option.
    """
    bound = {}
    for view, entry in section.items():
        check_section(entry, ("name", "options"), f"{key}.{view}")
        bound[view] = bind(choose(TRANSFORMS, entry.name, f"{key}.{view}.name"), entry.options, f"{key}.{view}.options")
    return bound
