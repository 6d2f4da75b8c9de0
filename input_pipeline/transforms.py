"""What happens to one view of a batch between a source and the device, by the name a config uses.

A transform is `fn(values, rngs, tokenizer, *, options) -> {suffix: array [N ...]}`: the list of raw values of one view becomes arrays
named view + suffix. `rngs` yields one generator per value while training; evaluation passes None, which must change nothing at random.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from core.config import ConfigError, bind, check_section, choose
from input_pipeline import image as image_ops
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
    values: Sequence[np.ndarray], rngs: Rngs, tokenizer: Tokenizer | None, *, height: int = 32, width: int = 32, crop: bool = False
) -> dict[str, np.ndarray]:
    """Images of any sizes, brought to one: stretched, or with `crop` their middle."""
    return stack([image_ops.resize(v, height, width, crop) for v in values], rngs, tokenizer)


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


def _check_lengths(length: int, buckets: Sequence[int], before: int, prompt: str, truncate_side: str) -> None:
    if truncate_side not in ("right", "left") or (truncate_side == "left" and prompt):
        why = "which would cut the prompt away; set it to 'right'" if prompt else "set it to 'right' or 'left'"
        raise ValueError(f"options.truncate_side is {truncate_side!r}; {why}.")
    if list(buckets) != sorted({int(b) for b in buckets if 0 < b <= length}):
        raise ValueError(f"options.buckets is {tuple(buckets)}; set it to rising widths of at most options.length, {length}, or to ().")
    if prompt and before >= length:
        raise ValueError(f"the prompt takes {before} of options.length = {length} tokens; set length to {2 * before} or more.")


TRANSFORMS = {"augment": augment, "resize": resize, "stack": stack, "tokenize": tokenize}


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
