"""Heads between towers and a loss: SLIP's projector, on two more passes of the image beside the captioned one."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import retrieval
from core import mesh as meshes
from core.checkpoint import restore
from core.config import ConfigError, plain
from core.paths import by_path, from_paths
from core.workdir import write_json
from models import heads
from tests import tiny
from tests.training.test_loop import saved
from training import loop

STEADY = dict(optimizer__schedule=dict(name="constant", options={}), optimizer__name="sgd", optimizer__options={})


def config(weight=1.0, **changes):
    made = tiny.config(data__copies=dict(one="image", two="image"), train__steps=2, **STEADY | changes)
    for view in ("one", "two"):
        made.data.transforms[view] = made.data.transforms.image
        made.model.views[view] = "image"
    made.model.heads.project = dict(name="projector", inputs=dict(one="z_one", two="z_two"), options=dict(widths=(12, 8)))
    inputs = dict(zq="project_one", zp="project_two")
    made.losses.views = dict(name="simclr", inputs=inputs, weight=weight, options=dict(temperature=0.1))
    return made


def updated(made, workdir, **mesh):
    """The run, and its parameters before and after an update, by path."""
    run = tiny.prepare(made, workdir, **mesh)
    with jax.set_mesh(run.mesh), run.data.iterate(0) as batches:
        shardings = jax.tree.map(lambda s: s.sharding, run.abstract)
        state = jax.jit(run.init, out_shardings=shardings)()
        update = jax.jit(run.step, out_shardings=(shardings, meshes.replicated(run.mesh)))
        batch = {name: array for name, array in next(batches).items() if name in run.spec}
        batch = meshes.place_batch(batch | {"stop": np.zeros(16, np.uint8)}, run.mesh)
        # The second: the rate of the first is 0.
        after, _ = update(update(state, batch, np.bool_(False))[0], batch, np.bool_(False))
        return run, *(jax.tree.map(np.asarray, by_path(one.params)) for one in (state, after))


def same_movement(before, expected, found, still=()):
    """Every parameter but the `still` ones moves, and to within a hundredth of its largest movement it does so in both runs.

    Sums in another order come to about 1e-6 of a gradient; what is added to a parameter is rounded to its own spacing.
    """
    for path, array in expected.items():
        moved, rounding = np.abs(array - before[path]).max(), np.spacing(np.abs(array).max()) + 1e-9
        assert (moved > 10 * rounding) != (path in still), path
        np.testing.assert_allclose(found[path], array, rtol=0, atol=0.01 * moved + 2 * rounding, err_msg=path)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return updated(config(optimizer__ema_decay=0.9), tmp_path_factory.mktemp("alone"))


@pytest.mark.many_processes  # compiles steps
def test_a_head_learns_and_has_no_average(alone):
    run, before, after = alone
    mine = {path for path in before if path.startswith("heads/project/")}
    assert len(mine) == 6 and all((before[path] != after[path]).any() for path in mine if "linear_last/bias" not in path)
    assert mine <= {path for path in before} and not mine & set(run.abstract.ema)
    assert set(by_path(run.abstract.items()["heads"])) == {path.removeprefix("heads/") for path in mine}
    assert "heads" not in run.abstract.items()["params"]


@pytest.mark.many_processes
def test_statistics_are_those_of_the_whole_batch_on_every_mesh_and_in_microbatches(alone, tmp_path):
    mesh = dict(data=2, fsdp=2, tensor=2)
    made = config(optimizer__ema_decay=0.9, train__microbatches=2)
    run, _, after = updated(made, tmp_path, devices=jax.devices(), **mesh)
    same_movement(*alone[1:], after, still=("heads/project/linear_0/bias",))  # the norm behind it takes its mean away
    spec = by_path(run.abstract.params)["heads/project/linear_0/kernel"].sharding.spec
    assert spec == jax.P("fsdp", "tensor")


@pytest.mark.many_processes  # compiles two steps
def test_whitening_is_that_of_the_whole_batch_on_every_mesh_and_in_microbatches(tmp_path):
    made = config(optimizer__clip_norm=None)
    inputs = dict(one="z_one", two="z_two", key="key")
    made.model.heads.project = dict(name="shuffled_whitening", inputs=inputs, options=dict(groups=4, eps=1e-3))
    _, before, expected = updated(made, tmp_path / "alone")
    made.train.microbatches = 2
    _, _, found = updated(made, tmp_path / "parts", devices=jax.devices(), data=2, fsdp=2, tensor=2)
    same_movement(before, expected, found)
    made.model.heads.project.options.groups = 5
    with pytest.raises(ConfigError, match="a head cannot be built from this config: 5 groups of 16 channels over 16 rows"):
        tiny.prepare(made, tmp_path / "wrong")


def test_a_projector_is_linear_layers_with_batch_norm_between():
    rng = np.random.default_rng(0)
    x, module = jnp.asarray(rng.normal(size=(5, 3)), jnp.float32), heads.Projector(widths=(4, 2))
    params = jax.tree.map(lambda s: rng.normal(size=s.shape), nn.unbox(jax.eval_shape(lambda: module.init(jax.random.key(0), a=x))))
    found = module.apply(jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params), a=x)["a"]
    x, params = np.asarray(x), params["params"]
    y = x @ params["linear_0"]["kernel"] + params["linear_0"]["bias"]
    y = (y - y.mean(0)) / np.sqrt(y.var(0) + 1e-5) * params["norm_0"]["scale"] + params["norm_0"]["bias"]
    y = np.maximum(y, 0) @ params["linear_last"]["kernel"] + params["linear_last"]["bias"]
    np.testing.assert_allclose(found, y / np.linalg.norm(y, axis=1, keepdims=True), atol=1e-5)


def test_exchanging_the_texts_exchanges_two_blocks_of_the_head():
    rng = np.random.default_rng(0)
    one, two = (jnp.asarray(rng.normal(size=(5, 3)), jnp.float32) for _ in range(2))
    module = heads.PairScore(width=4, scores=2)
    params = nn.unbox(module.init(jax.random.key(0), one=one, two=two))["params"]
    first, last = (jax.tree.map(np.asarray, params[name]) for name in ("linear_0", "linear_last"))
    features = np.concatenate([one, two, one * two, np.abs(one - two)], axis=1)
    expected = np.maximum(features @ first["kernel"] + first["bias"], 0) @ last["kernel"] + last["bias"]
    found = module.apply({"params": params}, one=one, two=two)["score"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    exchanged = dict(params, linear_0=dict(first, kernel=first["kernel"][np.r_[3:6, 0:3, 6:12]]))
    np.testing.assert_allclose(module.apply({"params": exchanged}, one=two, two=one)["score"], found, atol=1e-5)
    dot = heads.PairScore(kind="dot")
    np.testing.assert_allclose(
        dot.init_with_output(jax.random.key(0), one=one, two=two)[0]["score"][:, 0], 10 * (one * two).sum(1), rtol=1e-5
    )
    with pytest.raises(ValueError, match="set config.model.heads.<label>.options.kind"):
        heads.PairScore(kind="dot", scores=2).init(jax.random.key(0), one=one, two=two)


def test_embeddings_made_beforehand_score_as_in_a_step(tmp_path):
    made, options = tiny.config(), dict(concat=dict(width=8, scores=2), dot=dict(kind="dot"))
    for label, own in options.items():
        made.model.heads[label] = dict(name="pair_score", inputs=dict(one="z_image", two="z_text"), options=own)
    made.model.towers.image.options.dropout = 0.0  # which an encoder does not have
    run, rng = tiny.prepare(made, tmp_path), np.random.default_rng(0)
    flat = {path: jnp.asarray(0.5 * rng.normal(size=s.shape), s.dtype) for path, s in by_path(run.abstract.params).items()}
    with run.data.iterate(0) as batches:
        batch = {name: array for name, array in next(batches).items() if name in run.spec}
    params, step = from_paths(flat), jax.jit(run.forward.towers)(flat, batch, np.int32(3))
    encode = jax.jit(lambda rows: run.model.apply({"params": params}, rows))
    for first in (0, 4):  # few at a time, and kept
        np.savez(tmp_path / f"{first}.npz", **encode({n: array[first : first + 4] for n, array in batch.items() if run.model.reads(n)}))
    kept = [np.load(tmp_path / f"{first}.npz") for first in (0, 4)]
    order = rng.permutation(8)
    one, two = (jnp.asarray(np.concatenate([file[name] for file in kept])[order]) for name in ("z_image", "z_text"))
    for label, own in options.items():
        found = heads.PairScore(**own).apply({"params": params["heads"][label]}, one=one, two=two)["score"]
        assert found.shape == (8, own.get("scores", 1)) and np.std(found, axis=0).min() > 0.05
        np.testing.assert_allclose(found, step[f"{label}_score"][order], atol=1e-5)


@pytest.mark.many_processes  # compiles several runs
def test_a_run_goes_on_with_its_heads_and_leaves_them_behind(tmp_path):
    made = config()
    tiny.train(made, tmp_path / "whole")
    made.train.steps, made.checkpoint.every_steps = 1, 1
    tiny.train(made, tmp_path / "parts")
    made.train.steps = 2
    assert tiny.train(made, tmp_path / "parts") == loop.Outcome(2, False)
    for item in ("params", "heads", "opt"):
        both = (saved(tmp_path / name, made, 2, item) for name in ("whole", "parts"))
        jax.tree.map(np.testing.assert_array_equal, *both)
    write_json(tmp_path / "whole" / "config.json", plain(made))
    encoder = retrieval.load(tmp_path / "whole")
    assert not [path for path in by_path(encoder.params) if "heads" in path]
    assert encoder.encode(["seven"], "text").shape == (1, 16)


@pytest.mark.many_processes  # compiles two runs
def test_a_weight_of_zero_is_the_run_without(tmp_path):
    without = tiny.config(train__steps=2, **STEADY)
    tiny.train(config(weight=0.0), tmp_path / "zero")
    tiny.train(without, tmp_path / "without")
    like = tiny.prepare(without, tmp_path / "without").abstract.params
    both = (restore(tmp_path / name / "checkpoints", 2, "params", like) for name in ("zero", "without"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), *both)  # clipping adds up the norm in another order


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(name="projektor"), "config.model.heads.project.name is 'projektor'.*Did you mean 'projector'"),
        (dict(inputs={}), "config.model.heads.project.inputs is empty"),
        (dict(inputs=dict(one="towers_text/tokens")), "one asks for the parameter 'towers_text/tokens', but there are, .*: towers_text/b"),
        (dict(inputs=dict(one="z_three")), "config.model.heads.project.inputs.one asks for 'z_three', but a step has only: "),
    ],
)
def test_a_head_that_cannot_be_is_refused(change, said):
    model = config().model
    model.heads.project = dict(name="projector", inputs=dict(one="z_one"), options={}) | change
    with pytest.raises(ConfigError, match=said):
        heads.make(model)[0].pick({"z_one": None}, {"towers_text/b": None, "towers_image/a": None})
