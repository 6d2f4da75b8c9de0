"""Parameter trees as flat dicts by path, and the patterns that configs pick paths with."""

import re
from collections.abc import Sequence
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from core.config import ConfigError


def by_path(params) -> dict[str, Any]:
    """A parameter tree as one flat dict: `towers_image/blocks/block_0/norm_mlp/scale` to array."""
    return flatten_dict(params, sep="/")


def from_paths(flat: dict[str, Any]):
    """The inverse of `by_path`."""
    return unflatten_dict(flat, sep="/")


def tower_of(path: str) -> str | None:
    """The label of a parameter's tower: `text` for `towers_text/...` and `adapters/text/...`; None for what belongs to no tower."""
    found = re.match(r"(?:towers_|adapters/)([^/]+)/", path)
    return found[1] if found else None


def block_of(path: str) -> int | None:
    """The place of a parameter's block in its tower, from 0: 3 for `towers_text/blocks/block_3/...`; None outside of blocks."""
    found = re.search(r"/blocks/block_(\d+)/", path)
    return int(found[1]) if found else None


def matches(path: str, patterns: Sequence[str]) -> bool:
    """Whether any regular expression is found in `path`."""
    return any(re.search(pattern, path) for pattern in patterns)


def check_patterns(patterns: Sequence[str], paths, key: str) -> None:
    """Refuses a pattern that matches no parameter: it is a typo.

    Raises:
        ConfigError: names the pattern and some paths.
    """
    for pattern in patterns:
        if not any(re.search(pattern, path) for path in paths):
            raise ConfigError(
                f"{key} holds {pattern!r}, which matches no parameter; there are, for example, {', '.join(sorted(paths)[:4])}."
            )
