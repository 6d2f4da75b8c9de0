"""Parts of the learning rate by path and depth, against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from core.config import ConfigError
from training import optimizer, rates

TEXT = ("towers_text/token_embedding", "towers_text/position_embedding", "towers_text/norm/scale", "towers_text/projection/kernel")
BLOCKS = tuple(f"towers_text/blocks/block_{i}/mlp/fc_in/kernel" for i in range(3))
IMAGE = ("towers_image/patch_kernel", "towers_image/class_token", "towers_image/blocks/block_0/norm_mlp/scale", "towers_image/pool/probe")
CONV = ("towers_conv/stem/kernel",)
ADAPTER = ("adapters/text/blocks/block_1/mlp/fc_in/kernel/a",)
PATHS = (*TEXT, *BLOCKS, *IMAGE, *CONV, *ADAPTER, "log_logit_scale")


def test_blocks_have_less_the_deeper_they_lie():
    found = rates.factors(PATHS, {}, dict(text=0.5))
    assert [found[path] for path in BLOCKS] == [0.25, 0.5, 1.0]
    assert [found[path] for path in TEXT] == [0.125, 0.125, 1.0, 1.0]  # embeddings lowest; norm and projection are the head
    assert found[ADAPTER[0]] == 0.5  # as the block it adapts
    assert all(found[path] == 1.0 for path in (*IMAGE, *CONV, "log_logit_scale"))


def test_each_tower_has_a_decay_of_its_own():
    found = rates.factors(PATHS, {}, dict(text=0.5, image=0.8))
    assert [found[path] for path in IMAGE] == [0.8, 0.8, 1.0, 1.0]  # one block


def test_factors_of_several_patterns_multiply():
    found = rates.factors(PATHS, {"^towers_text/": 0.1, "block_0/": 3.0, "^log_logit_scale$": 10.0}, dict(text=0.5))
    assert found[BLOCKS[0]] == pytest.approx(0.1 * 3 * 0.25) and found[BLOCKS[2]] == pytest.approx(0.1)
    assert found[IMAGE[2]] == 3.0 and found["log_logit_scale"] == 10.0


@pytest.mark.parametrize(
    "multipliers, decay, message",
    [
        ({"towers_txt": 0.1}, {}, "config.optimizer.multipliers holds 'towers_txt', which matches no parameter"),
        ({"towers_text": 0.0}, {}, "config.optimizer.multipliers has 0.0 for 'towers_text'; .*config.optimizer.freeze"),
        ({}, dict(txt=0.8), "config.optimizer.layer_decay.txt is not a key; valid ones: conv, image, text.* Did you mean 'text'"),
        ({}, dict(text=1.5), "config.optimizer.layer_decay.text is 1.5; set it above 0 and to 1 at most"),
        ({}, dict(conv=0.8), "config.optimizer.layer_decay.conv needs a tower with blocks"),
    ],
)
def test_mistakes_name_the_key(multipliers, decay, message):
    with pytest.raises(ConfigError, match=message):
        rates.factors(PATHS, multipliers, decay)


def test_the_log_tells_who_gets_what():
    lines = rates.summary(rates.factors(PATHS, {}, dict(text=0.5)))
    assert lines == [
        "learning rate x 0.125 for 2 parameters such as towers_text/position_embedding",
        "learning rate x 0.25 for 1 parameters such as towers_text/blocks/block_0/mlp/fc_in/kernel",
        f"learning rate x 0.5 for 2 parameters such as {ADAPTER[0]}",
    ]


def section(name="adamw", **changes):
    """An optimizer at a constant rate of 0.1, without clipping."""
    made = common.base().optimizer
    made.name, made.learning_rate, made.warmup_steps, made.clip_norm = name, 0.1, 0, 0.0
    made.schedule, made.options = dict(name="constant", options={}), dict(weight_decay=0.2)
    for key, value in changes.items():
        made[key] = value
    return made


def updates(section, params, gradient):
    """Those of the second step: the first has a rate of zero."""
    tx = optimizer.make(section, 10, list(params))
    _, state = tx.update(gradient, tx.init(params), params)
    return jax.tree.map(np.asarray, tx.update(gradient, state, params)[0])


@pytest.mark.parametrize("name", sorted(optimizer.OPTIMIZERS))
def test_a_factor_acts_on_the_learning_rate_decay_included(name):
    params = {path: jnp.full((4, 4), 2.0 + i) for i, path in enumerate((*BLOCKS, "towers_text/norm/scale"))}
    gradient = {path: jnp.linspace(-0.1, 0.1, 16).reshape(4, 4) for path in params}
    plain = updates(section(name), params, gradient)
    found = updates(section(name, multipliers={"fc_in": 0.1}, layer_decay=dict(text=0.5)), params, gradient)
    for path, factor in zip(params, (0.025, 0.05, 0.1, 1.0), strict=True):
        np.testing.assert_allclose(found[path], factor * plain[path], rtol=1e-6)
    assert np.abs(plain[BLOCKS[0]]).min() > 0


def test_adamw_by_hand():
    params = {path: jnp.full((1,), 3.0) for path in (*BLOCKS, TEXT[2])}
    found = updates(section(layer_decay=dict(text=0.5)), params, jax.tree.map(lambda p: jnp.full_like(p, 7.0), params))
    # The first direction of Adam is the gradient's sign, and decay adds 0.2 x 3; norms do not decay.
    for path, expected in zip(params, (-0.1 * 0.25 * 1.6, -0.1 * 0.5 * 1.6, -0.1 * 1.6, -0.1), strict=True):
        np.testing.assert_allclose(found[path], expected, rtol=1e-4)  # 1 - b2 in float32


def test_factors_of_one_add_nothing_to_the_optimizer():
    params = {"log_logit_scale": jnp.zeros(())}
    parts = lambda made: len(optimizer.make(made, 10, list(params)).init(params))
    assert parts(section(multipliers={"scale": 1.0})) == parts(section()) == parts(section(multipliers={"scale": 0.5})) - 1
