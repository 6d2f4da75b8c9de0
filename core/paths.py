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
