"""What happens to one view of a batch between a source and the device, by the name a config uses.

A transform is `fn(values, rngs, tokenizer, *, options) -> {suffix: array [N ...]}`: the list of raw values of one view becomes arrays
named view + suffix. `rngs` yields one generator per value while training; evaluation passes None, which must change nothing at random.

Leaves what they do to `input_pipeline/image_transforms.py`, `input_pipeline/text_transforms.py` and `input_pipeline/stored.py`.
"""

from collections.abc import Mapping

from core.config import bind, check_section, choose
from input_pipeline.image_transforms import augment, patches, random_crop, resize, stack
from input_pipeline.stored import stored
from input_pipeline.text_transforms import mask_tokens, pack, tokenize

TRANSFORMS = {
    "augment": augment,
    "mask_tokens": mask_tokens,
    "pack": pack,
    "patches": patches,
    "random_crop": random_crop,
    "resize": resize,
    "stack": stack,
    "stored": stored,
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
