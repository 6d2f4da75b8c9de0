"""Parameter trees by path."""

import pytest

from core.config import ConfigError
from core.paths import block_of, by_path, check_patterns, from_paths, matches, tower_of

TREE = {"towers_image": {"blocks": {"block_0": {"bias": 1, "kernel": 2}}}, "log_logit_scale": 3}
PATHS = ("towers_image/blocks/block_0/bias", "towers_image/blocks/block_0/kernel", "log_logit_scale")


def test_paths_there_and_back():
    assert by_path(TREE) == dict(zip(PATHS, (1, 2, 3), strict=True))
    assert from_paths(by_path(TREE)) == TREE


@pytest.mark.parametrize(
    "patterns, picked",
    [(("bias$",), 1), (("block_",), 2), (("^log", "kernel"), 2), ((), 0), (("^bias",), 0), (("block_[1-9]",), 0)],
    ids=str,
)
def test_a_pattern_is_searched_anywhere_in_the_path(patterns, picked):
    assert sum(matches(path, patterns) for path in PATHS) == picked


def test_a_pattern_that_picks_nothing_is_a_typo():
    check_patterns(("bias", "^log_logit_scale$"), PATHS, "config.optimizer.freeze")
    found = "config.optimizer.freeze holds 'towers_imge', which matches no parameter; there are, for example, log_"
    with pytest.raises(ConfigError, match=found):
        check_patterns(("bias", "towers_imge"), PATHS, "config.optimizer.freeze")


@pytest.mark.parametrize(
    "path, tower, block",
    [
        ("towers_image/blocks/block_12/norm/scale", "image", 12),
        ("adapters/text/blocks/block_0/mlp/fc_in/kernel/a", "text", 0),
        ("towers_a_b/token_embedding", "a_b", None),
        ("towers_image/stage_1_block_2_conv/kernel", "image", None),
        ("log_logit_scale", None, None),
        ("heads_text/towers_image/kernel", None, None),
    ],
)
def test_a_path_tells_tower_and_block(path, tower, block):
    assert (tower_of(path), block_of(path)) == (tower, block)
