"""Runs that train a part of a model: adapters, given weights, precision and memory by tower."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import retrieval
from core.checkpoint import restore
from core.config import ConfigError
from core.paths import by_path, from_paths
from core.workdir import claim_config
from tests import tiny
from tests.training.test_step import run_steps
from training import loop

LORA = dict(name="lora", patterns=("mlp/", "qkv_kernel/[qv]$"), train=("projection",), options=dict(rank=2, init="normal"))
CONSTANT = dict(optimizer__schedule=dict(name="constant", options={}))
FREE = ("adapters/text/", "towers_text/projection/", "towers_image/", "log_logit_scale")


def lora(**changes):
    return tiny.config(model__adapters=dict(text=LORA), **CONSTANT | changes)


def items(run, workdir, step):
    return {
        name: jax.tree.map(np.asarray, restore(workdir / "checkpoints", step, name, like))
        for name, like in run.abstract.items().items() if jax.tree.leaves(like)
    }  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of four steps, in one go, with averages."""
    workdir = tmp_path_factory.mktemp("lora")
    made = lora(optimizer__ema_decay=0.9, train__steps=4)
    claim_config(workdir, made)
    assert tiny.train(made, workdir) == loop.Outcome(4, False)
    return made, workdir, tiny.prepare(made, workdir)


def test_only_adapters_and_what_they_name_learn(trained):
    made, workdir, run = trained
    before, after = by_path(loop.fresh(run).params), by_path(items(run, workdir, 4)["params"])
    for path, leaf in before.items():
        assert (np.asarray(leaf) == after[path]).all() != path.startswith(FREE), path
    assert any(path.startswith("adapters/text/blocks/block_0/attention/qkv_kernel/q/") for path in before)


def test_frozen_matrices_have_neither_moments_nor_averages(trained):
    _, _, run = trained
    learns = {path for path in by_path(run.abstract.params) if path.startswith(FREE)}
    moments = moments_of(run)
    assert set(run.abstract.ema) == learns
    assert all(any(f"['{path}']" in name for path in learns) for name in moments) and len(moments) == 2 * (len(learns) - 1)


def test_a_stopped_run_with_adapters_goes_on_bit_for_bit(trained, tmp_path):
    made, workdir, run = trained
    made = made.copy_and_resolve_references()
    for steps in (2, 4):
        made.train.steps = steps
        assert tiny.train(made, tmp_path) == loop.Outcome(steps, False)
    jax.tree.map(np.testing.assert_array_equal, items(run, tmp_path, 4), items(run, workdir, 4))


@pytest.mark.parametrize("weights", ["params", "ema"])
def test_an_encoder_of_the_run_has_the_merged_parameters(weights, trained):
    made, workdir, run = trained
    found = items(run, workdir, 4)
    merged = run.adapters.merge(found["params"])
    if weights == "ema":
        averaged = by_path(found["params"]) | found["ema"]
        merged = run.adapters.merge(from_paths(averaged))
    encoder = retrieval.load(workdir, weights=weights)
    with run.data.iterate(0) as batches:
        batch = next(batches)
    merged = jax.tree.map(jnp.asarray, merged)
    expected = run.model.apply({"params": merged}, {name: jnp.asarray(batch[name]) for name in ("text", "text_mask")})["z_text"]
    texts = [run.data.tokenizer.decode(row) for row in batch["text"]]
    np.testing.assert_allclose(encoder.encode(texts), expected, atol=1e-5)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return run_steps(lora(optimizer__name="sgd", optimizer__options={}), tmp_path_factory.mktemp("plain"), count=2)


@pytest.mark.parametrize(
    "changes, mesh",
    [
        (dict(train__microbatches=2, model__towers__text__options__scan=True, model__towers__text__options__remat=True), {}),
        ({}, dict(data=2, fsdp=2, tensor=2)),
    ],
    ids=["cached, scanned, rematerialised", "2x2x2"],
)
def test_adapters_learn_the_same_however_a_step_is_computed(changes, mesh, plain, tmp_path):
    made = lora(optimizer__name="sgd", optimizer__options={}, **changes)
    params, metrics, _ = run_steps(made, tmp_path, count=2, **(mesh | dict(devices=jax.devices()) if mesh else {}))
    for path, expected in plain[0].items():
        np.testing.assert_allclose(params[path], expected, rtol=0, atol=2e-6, err_msg=path)
    np.testing.assert_allclose(metrics["train/loss"], plain[1]["train/loss"], rtol=1e-5)


def given(run):
    """Weights as another checkpoint brings them: some of the model's, in double precision."""
    like = by_path(run.abstract.params)
    return {path: np.full(like[path].shape, 0.5) for path in ("towers_text/token_embedding", "towers_text/blocks/block_0/mlp/fc_in/kernel")}


def test_a_fresh_start_takes_the_weights_it_is_given(tmp_path):
    made = tiny.config(optimizer__ema_decay=0.9, optimizer__freeze=("token_embedding",))
    run = tiny.prepare(made, tmp_path, devices=jax.devices(), data=2, fsdp=2, tensor=2)
    bare = loop.fresh(run)
    state = loop.fresh(run._replace(initial=lambda: given(run)))
    new, old = by_path(state.params), by_path(bare.params)
    for path, leaf in old.items():
        expected = given(run)[path] if path in given(run) else leaf
        np.testing.assert_array_equal(new[path], np.asarray(expected, np.float32), err_msg=path)
        assert new[path].sharding == leaf.sharding and new[path].dtype == leaf.dtype
    for path, leaf in state.ema.items():
        np.testing.assert_array_equal(leaf, new[path])
        one, other = leaf.addressable_shards[0].data, new[path].addressable_shards[0].data
        assert one.unsafe_buffer_pointer() != other.unsafe_buffer_pointer()  # a step donates both


def test_weights_that_do_not_fit_are_refused(tmp_path):
    run = tiny.prepare(tiny.config(), tmp_path)
    wrong = {"towers_text/token_embedding": r"\(\d+, 16\)", "towers_text/tokens": "absent"}
    for path, found in wrong.items():
        brought = {path: np.zeros((3, 16))}
        with pytest.raises(ConfigError, match=rf"init brings {path} of \(3, 16\), which in this model is {found}"):
            loop.fresh(run._replace(initial=brought.copy))


def test_a_resumed_run_keeps_its_own_weights(trained):
    _, workdir, run = trained

    def read():
        raise AssertionError("a resumed run reads no other checkpoint")

    state, position = loop.resume(run._replace(initial=read), workdir)
    assert (int(state.step), position) == (4, 4)


def programs(made, workdir):
    """The gradient of each view's tower, as it is traced."""
    run = tiny.prepare(made, workdir)
    views = {name: jax.ShapeDtypeStruct(s.shape, s.dtype) for name, s in run.spec.items()}

    def program(view):
        only = {name: s for name, s in views.items() if name.removesuffix("_mask") == view}
        total = lambda params, batch: run.model.apply({"params": params}, batch)[f"z_{view}"].astype(jnp.float32).sum()
        return str(jax.make_jaxpr(jax.grad(total))(run.abstract.params, only))

    return program("image"), program("text")


def test_precision_and_memory_are_each_towers_own(tmp_path):
    made = tiny.config()
    plain_image, plain_text = programs(made, tmp_path / "plain")
    made.model.towers.image.options.update(dtype="bfloat16", remat=True)
    image, text = programs(made, tmp_path / "changed")
    assert "bf16[" in image and "bf16[" not in text
    # A block that is computed again has its matrix products once more.
    assert image.count("dot_general") > plain_image.count("dot_general") and text.count("dot_general") == plain_text.count("dot_general")


def test_the_log_names_every_part_of_the_learning_rate(tmp_path, caplog):
    made = tiny.config(optimizer__layer_decay=dict(text=0.5), optimizer__multipliers={"^log_logit_scale$": 4.0})
    made.optimizer.freeze = ("token_embedding$",)  # has no learning rate to name
    with caplog.at_level("INFO", "training.optimizer"):
        tiny.prepare(made, tmp_path)
    assert "learning rate x 0.5 for 1 parameters such as towers_text/position_embedding" in caplog.text
    assert "learning rate x 4 for 1 parameters such as log_logit_scale" in caplog.text


def test_rules_of_a_tower_that_is_not_there_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="config.mesh.tower_rules.imge is not a key; valid ones: image, text.* Did you mean 'image'"):
        tiny.prepare(tiny.config(mesh__tower_rules=dict(imge=())), tmp_path)
    with pytest.raises(ConfigError, match=r"config.mesh.tower_rules.image holds \('embed', 'data'\)"):
        tiny.prepare(tiny.config(mesh__tower_rules=dict(image=(("embed", "data"),))), tmp_path)


def moments_of(run):
    """Paths of what the optimizer keeps for each parameter."""
    return [jax.tree_util.keystr(path) for path, leaf in jax.tree_util.tree_leaves_with_path(run.abstract.opt_state) if leaf.ndim]


def shown(*sections):
    """The toy config after the lines of some sections of the page, the first of which has no title."""
    page = (pathlib.Path(__file__).parents[2] / "docs" / "fine_tuning.md").read_text()
    found = dict(zip(("", *re.findall(r"^## (.*)$", page, re.M)), re.split(r"^## .*$", page, flags=re.M), strict=True))
    made = tiny.config()
    for section in sections:
        for block in re.findall(r"^```python\n(.*?)^```$", found[section], re.M | re.S):
            exec(block, {"config": made})
    return made


def test_what_the_page_shows_can_be_built(tmp_path):
    made = shown("", "Low-rank adapters")
    run = tiny.prepare(made, tmp_path, devices=jax.devices(), data=4, fsdp=2)
    params = by_path(run.abstract.params)
    assert all(leaf.sharding.is_fully_replicated for path, leaf in params.items() if "towers_image/" in path)
    assert "fsdp" in params["adapters/text/blocks/block_0/mlp/fc_in/kernel/a"].sharding.spec
    assert {path for path in run.abstract.ema if "towers_" in path} == {"towers_text/projection/kernel"}


def test_the_bottlenecks_and_the_companions_of_the_page_can_be_built(tmp_path):
    run = tiny.prepare(shown("Bottleneck adapters"), tmp_path)
    learns = [path for path in moments_of(run) if "towers_text" in path]
    assert learns and all("/adapter/" in path for path in learns)
    run = tiny.prepare(shown("Companions"), tmp_path)
    assert any("towers_text_guide" in path for path in by_path(run.abstract.params))
    assert moments_of(run) and not any("guide" in path for path in moments_of(run))
    assert run.abstract.momentum["slow"] and run.abstract.carry["queue"]
