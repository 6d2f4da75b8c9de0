"""One update: the same on every mesh, on trainable leaves only, with the scale kept in bounds."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from core import mesh as meshes
from core.config import ConfigError
from core.paths import by_path
from losses.entries import apply_entry, entries
from tests import tiny
from training import forward


def run_steps(made, tmp_path, count=3, **mesh):
    """Parameters, metrics and averages after some updates, as numpy."""
    return every_step(made, tmp_path, count, **mesh)[-1]


def every_step(made, tmp_path, count, **mesh):
    """Those before the first update and after each one; nothing was measured before the first."""
    seen = lambda state, metrics=None: jax.tree.map(np.asarray, (by_path(state.params), metrics, state.ema))
    run = tiny.prepare(made, tmp_path, **mesh)
    with jax.set_mesh(run.mesh), run.data.iterate(0) as batches:
        shardings = jax.tree.map(lambda s: s.sharding, run.abstract)
        state = jax.jit(run.init, out_shardings=shardings)()
        update = jax.jit(run.step, out_shardings=(shardings, meshes.replicated(run.mesh)))
        found = [seen(state)]
        for _ in range(count):
            batch = {name: array for name, array in next(batches).items() if name in run.spec}
            rows = len(batch["id"])
            state, metrics = update(state, meshes.place_batch(batch | {"stop": np.zeros(rows, np.uint8)}, run.mesh), np.bool_(True))
            found.append(seen(state, metrics))
        return found


@pytest.fixture(scope="module")
def on_one_device(tmp_path_factory):
    return run_steps(tiny.config(optimizer__name="sgd", optimizer__options={}), tmp_path_factory.mktemp("one"))


@pytest.mark.parametrize("shape", [(4, 2, 1), (2, 2, 2)])
def test_three_updates_with_dropout_are_the_same_on_every_mesh(shape, on_one_device, tmp_path):
    # SGD, because Adam divides by a root that turns the last bit of a tiny gradient into a visible step.
    data, fsdp, tensor = shape
    devices = jax.devices()[: data * fsdp * tensor]
    made = tiny.config(optimizer__name="sgd", optimizer__options={})
    params, metrics, _ = run_steps(made, tmp_path, devices=devices, data=data, fsdp=fsdp, tensor=tensor)
    for path, expected in on_one_device[0].items():
        np.testing.assert_allclose(params[path], expected, rtol=0, atol=2e-6, err_msg=path)
    for name, expected in on_one_device[1].items():
        np.testing.assert_allclose(metrics[name], expected, rtol=2e-4, atol=1e-5, err_msg=name)


def test_parameters_are_split_as_the_rules_say(tmp_path):
    run = tiny.prepare(tiny.config(), tmp_path, devices=jax.devices(), data=2, fsdp=2, tensor=2)
    specs = {path: leaf.sharding.spec for path, leaf in by_path(run.abstract.params).items()}
    assert specs["towers_image/blocks/block_0/mlp/fc_in/kernel"] == jax.sharding.PartitionSpec("fsdp", "tensor")
    moments = jax.tree.leaves(run.abstract.opt_state)
    split = [leaf for leaf in moments if leaf.shape == (16, 64)]
    assert len(split) == 4 and all(leaf.sharding.spec == jax.sharding.PartitionSpec("fsdp", "tensor") for leaf in split)


@pytest.mark.parametrize("pattern", ["^towers_image/", "^towers_text/(?!projection|pool)"])
def test_frozen_parts_keep_their_value_and_have_no_optimizer_state(pattern, tmp_path):
    made = tiny.config(optimizer__freeze=(pattern,), optimizer__ema_decay=0.9)
    made.model.towers.text.options.update(causal=False, pooling="adapted", pooling_options=dict(blocks=1))
    run = tiny.prepare(made, tmp_path)
    learns = {path for path in by_path(run.abstract.params) if not re.search(pattern, path)}
    for tree in (run.abstract.opt_state, run.abstract.ema):
        paths = [path[-1] for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
        assert {key.key for key in paths if isinstance(key, jax.tree_util.DictKey)} == learns
    (before, *_), *_, (after, *_) = every_step(made, tmp_path, 3)
    for path, leaf in before.items():
        assert (leaf == after[path]).all() == bool(re.search(pattern, path)), path


def test_a_freeze_pattern_without_a_match_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"config.optimizer.freeze holds 'tower_image/', which matches no parameter"):
        tiny.prepare(tiny.config(optimizer__freeze=("tower_image/",)), tmp_path)


def test_the_average_follows_the_definition(tmp_path):
    made = tiny.config(optimizer__ema_decay=0.2)
    (params, *_), *updates = every_step(made, tmp_path, 3)
    average = {path: leaf.astype(np.float64) for path, leaf in params.items()}
    for step, (params, _, ema) in enumerate(updates):
        decay = min(0.2, (1 + step) / (10 + step))
        average = {path: decay * average[path] + (1 - decay) * params[path] for path in params}
        for path, expected in average.items():
            np.testing.assert_allclose(ema[path], expected, atol=1e-6, err_msg=path)


@pytest.mark.parametrize("temperature, bound", [(0.0099, np.log(100.0)), (1.0, 0.0)])
def test_the_log_scale_stays_in_bounds_after_the_update(temperature, bound, tmp_path):
    # A large rate would carry the scale over the bound it starts near; from 1.0 the first gradient pushes below zero.
    made = tiny.config(
        model__temperature_init=temperature,
        optimizer__learning_rate=0.5,
        optimizer__warmup_steps=0,
        optimizer__schedule=dict(name="constant", options={}),
    )
    params, _, _ = run_steps(made, tmp_path, count=2)
    assert 0.0 <= params["log_logit_scale"] <= np.float32(np.log(100.0))
    assert np.isclose(params["log_logit_scale"], bound, atol=1.0)


def test_scale_norms_and_biases_do_not_decay(tmp_path):
    # With no gradient at all (weight 0 on the loss), only decay moves parameters.
    made = tiny.config(optimizer__options=dict(weight_decay=0.5), optimizer__warmup_steps=0, losses__main__weight=0.0)
    (before, *_), *_, (after, *_) = every_step(made, tmp_path, 2)
    moved = {path for path in before if not (before[path] == after[path]).all()}
    assert moved == {path for path in before if path.endswith("kernel")}


def test_dropout_keys_depend_on_seed_step_view_and_row_only():
    keys = lambda seed, step, rows: {
        v: jax.random.key_data(k) for v, k in forward.example_keys(seed, jnp.asarray(step), ("text", "image"), rows).items()
    }
    few, many = keys(0, 3, 4), keys(0, 3, 8)
    assert (few["text"] == many["text"][:4]).all()
    every = np.concatenate([many["text"], many["image"], keys(0, 4, 8)["text"], keys(1, 3, 8)["text"]])
    assert len(np.unique(every, axis=0)) == 32


def test_a_missing_array_lists_what_a_step_has(tmp_path):
    made = tiny.config()
    made.losses.main.inputs.zq = "z_query"
    with pytest.raises(ConfigError, match=r"config.losses.main.inputs.zq asks for 'z_query', but a step has only: id, .*z_image, z_text"):
        tiny.prepare(made, tmp_path)


def test_losses_add_up_by_weight(tmp_path):
    made = tiny.config()
    made.losses.second = dict(name="sigmoid", inputs=dict(zq="z_image", zp="z_text"), weight=0.25, options={})
    made.model.logit_bias_init = -10.0
    _, metrics, _ = run_steps(made, tmp_path, count=1)
    assert np.isclose(metrics["train/loss"], metrics["train/main"] + 0.25 * metrics["train/second"], rtol=1e-6)


def test_a_rows_weight_of_zero_leaves_it_out_of_the_mean():
    made = tiny.config()
    (entry,) = entries(made.losses)
    z = jnp.eye(4, 16)
    arrays = dict(z_image=z, z_text=z, logit_scale=jnp.float32(10), id=jnp.arange(4), weight=jnp.array([1.0, 1.0, 1.0, 0.0]))
    value, weight, _ = apply_entry(entry, arrays)
    assert weight.tolist() == [1, 1, 1, 0]
    np.testing.assert_allclose(value[:3], np.log(1 + 2 * np.exp(-10.0)), atol=3e-6)  # float32 around 10


def test_a_kernel_for_gpus_is_refused_elsewhere(tmp_path):
    made = tiny.config()
    made.losses.main.options = dict(method="ring", kernel="pallas")
    with pytest.raises(ConfigError, match="config.losses.main.options.kernel is 'pallas', .* of kind 'cpu'; set it to 'xla'.*'interpret'"):
        tiny.prepare(made, tmp_path)
    made.losses.main.options.kernel = "xla"
    tiny.prepare(made, tmp_path)
