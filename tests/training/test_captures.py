"""Inner states that a loss names: which towers return them, and that neither microbatches nor a mesh change them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from core import mesh as meshes
from core.config import ConfigError
from models import dual
from tests import tiny
from tests.training.test_cached_gradients import TEXTS, TOWER
from tests.training.test_heads import STEADY
from tests.training.test_loop import saved
from training import cached_gradients, loop

LAYERS = dict(zq_layers="layers_pooled_image", zp_layers="layers_pooled_text")


def config(**changes):
    """Digits with two layers in each tower, one of which each step draws; SGD, so that the last bit of a gradient stays one."""
    made = tiny.config(train__steps=4, **STEADY | changes)
    for tower in made.model.towers.values():
        tower.options.layers = 2
    inner = dict(name="infonce", inputs=dict(id="id"), options={})
    inputs = dict(zq="z_image", zp="z_text") | LAYERS
    made.losses.main = dict(name="matryoshka_2d", inputs=inputs, weight=1.0, options=dict(loss=inner, dims=(4, 16)))
    return made


def test_names_say_which_view_returns_what():
    names = ("z_text", "layers_pooled_text", "tokens_image", "layers_text_slow", "tokens_text_slow", "logit_scale")
    assert dual.captures(names, ("image", "text")) == {"image": ("tokens",), "text": ("layers_pooled",)}
    assert dual.captures(names, ("text",), "slow") == {"text": ("layers", "tokens")}
    assert dual.captures(("z_text",), ("image", "text")) == {}


def test_rows_come_back_in_their_order_from_microbatches():
    """Of eight rows on two devices, microbatch 0 has the rows 0, 1, 4 and 5."""
    made = ConfigDict(TEXTS | dict(towers=dict(text=TOWER | dict(options=TOWER["options"] | dict(layers=2)))))
    model, ids = dual.build(made), np.random.default_rng(0).integers(3, 20, (8, 6)).astype(np.int32)
    batch, capture = {"text": jnp.asarray(ids), "text_mask": jnp.asarray(ids) > 4}, {"text": ("layers_pooled", "tokens")}
    params = jax.jit(model.init)(jax.random.key(0), batch)["params"]
    with jax.set_mesh(meshes.make(devices=jax.devices()[:2])):
        of = lambda count: jax.jit(lambda p: cached_gradients.apply(model, p, batch, {}, count, 2, capture=capture))(params)
        whole, parts = of(1), of(2)
    assert whole["layers_pooled_text"].shape == (2, 8, 8) and whole["tokens_text"].shape == (8, 6, 8)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), parts, whole)


def test_a_state_that_no_tower_has_is_refused(tmp_path):
    made = config()
    made.losses.main.inputs.zq_layers = "layers_pooled_picture"
    with pytest.raises(ConfigError, match="zq_layers asks for 'layers_pooled_picture', but a step has only: .*layers_pooled_text"):
        tiny.prepare(made, tmp_path)
    made = config()
    made.model.towers.text.options.layers = 0
    with pytest.raises(ConfigError, match="0 layers have no states .* options.layers to 1 or more"):
        tiny.prepare(made, tmp_path)


@pytest.mark.many_processes  # compiles three runs
def test_neither_mesh_nor_microbatches_nor_a_break_change_a_run(tmp_path):
    alike(config, tmp_path)


def alike(config, tmp_path):
    """Four steps of `config(**changes)`: at once, in two runs (to the bit), and in microbatches on eight devices."""
    made = config()
    tiny.train(made, tmp_path / "whole")
    tiny.train(config(train__microbatches=2), tmp_path / "parts", devices=jax.devices(), data=2, fsdp=2, tensor=2)
    made.train.steps = 2
    tiny.train(made, tmp_path / "halves")
    made.train.steps = 4
    assert tiny.train(made, tmp_path / "halves") == loop.Outcome(4, False)
    whole, parts, halves = (saved(tmp_path / name, made, 4, "params") for name in ("whole", "parts", "halves"))
    before = jax.tree.leaves(saved(tmp_path / "whole", made, 2, "params"))
    assert any((a != b).any() for a, b in zip(before, jax.tree.leaves(whole), strict=True))  # the loss moves something
    jax.tree.map(np.testing.assert_array_equal, halves, whole)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=5e-6), parts, whole)
