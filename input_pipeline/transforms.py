"""What happens to one view of a batch between a source and the device, by the name a config uses.

A transform is `fn(values, rngs, tokenizer, *, options) -> {suffix: array [N ...]}`: the list of raw values of one view becomes arrays
named view + suffix. `rngs` yields one generator per value while training; evaluation passes None, which must change nothing at random.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from core.config import ConfigError, bind, check_section, choose
from input_pipeline import image as image_ops
from input_pipeline.tokenize import Tokenizer

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
    values: Sequence[np.ndarray], rngs: Rngs, tokenizer: Tokenizer | None, *, height: int = 32, width: int = 32
) -> dict[str, np.ndarray]:
    """Images of any sizes, brought to one."""
    return stack([image_ops.resize(v, height, width) for v in values], rngs, tokenizer)


def stack(values: Sequence[np.ndarray], rngs: Rngs, tokenizer: Tokenizer | None) -> dict[str, np.ndarray]:
    """Arrays of one shape, as they are."""
    return {"": np.stack(values)}


def tokenize(values: Sequence[str], rngs: Rngs, tokenizer: Tokenizer | None, *, length: int = 32) -> dict[str, np.ndarray]:
    """Texts as token ids, with a mask that is False on padding."""
    if tokenizer is None:
        raise ConfigError("texts need a tokenizer; set config.data.tokenizer to dict(name='bpe', options=dict(vocab_size=1024)).")
    ids, mask = tokenizer(values, length)
    return {"": ids, "_mask": mask}


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
