"""Towers that only a loss looks at: a guide that picks negatives, here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import retrieval
from core.checkpoint import restore
from core.config import ConfigError, plain
from core.paths import by_path
from core.workdir import write_json
from models import dual
from tests import tiny


def guided(**changes):
    """The digits, with guides of another width that read the same views again."""
    made = tiny.config(data__copies=dict(image_guide="image", text_guide="text"), **changes)
    towers = made.model.towers
    for view in ("image", "text"):
        towers[f"{view}_guide"] = towers[view].copy_and_resolve_references()
        towers[f"{view}_guide"].options.embed_dim = 8
        made.data.transforms[f"{view}_guide"] = made.data.transforms[view]
        made.model.views[f"{view}_guide"] = f"{view}_guide"
    towers.text_guide.options.dropout = 0.5
    made.model.companions = ("image_guide", "text_guide")
    inputs = dict(zq="z_image", zp="z_text", zq_guide="z_image_guide", zp_guide="z_text_guide", id="id")
    made.losses.main = dict(name="gist", inputs=inputs, weight=1.0, options={})
    return made


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("guided")
    made = guided()
    write_json(workdir / "config.json", plain(made))
    tiny.train(made, workdir)
    return made, tiny.prepare(made, workdir), workdir


def test_a_guide_does_not_move_and_has_no_optimizer_state(trained):
    made, run, workdir = trained
    first = by_path(jax.jit(run.init)().params)
    last = by_path(restore(workdir / "checkpoints", 6, "params", run.abstract.params))
    moved = {path.split("/")[0] for path in first if (np.asarray(first[path]) != np.asarray(last[path])).any()}
    assert {"towers_image", "towers_text"} <= moved and not any("guide" in name for name in moved)
    assert not [path for path in by_path(run.abstract.ema or {}) if "guide" in path]
    assert "guide" not in str(jax.tree_util.tree_structure(run.abstract.opt_state))


def test_a_guide_reads_without_dropout(trained):
    made, run, _ = trained
    model = dual.build(made.model)
    text = jnp.array([[3, 4, 5, 0]], jnp.int32)
    batch = dict(text=text, text_mask=text > 0, text_guide=text, text_guide_mask=text > 0)
    keys = lambda seed: {view: jax.random.split(jax.random.key(seed), 1) for view in ("text", "text_guide")}
    params = jax.jit(run.init)().params
    one, other = (model.apply({"params": params}, batch, keys(seed)) for seed in (0, 1))
    np.testing.assert_array_equal(one["z_text_guide"], other["z_text_guide"])


def test_what_is_left_after_training_has_no_guide(trained):
    encoder = retrieval.load(trained[2])
    assert encoder.views == ("image", "text") and not any("guide" in path for path in by_path(encoder.params))
    assert encoder.encode(["seven"], "text").shape == (1, 16)


def test_a_companion_must_be_a_tower():
    made = tiny.config(model__companions=("guide",))
    with pytest.raises(ConfigError, match=r"config.model.companions is 'guide', which is not among: image, text"):
        dual.build(made.model)
    made = guided()
    made.model.companions = ("image_guide",)
    with pytest.raises(ConfigError, match="one shared width"):
        dual.build(made.model)
