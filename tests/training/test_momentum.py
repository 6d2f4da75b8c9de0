"""Momentum towers and carries in a run: MoCHi on the digits, its keys from an average of the text tower, negatives from a queue."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from core import mesh as meshes
from core.config import ConfigError
from core.paths import by_path, from_paths
from models import dual
from tests import tiny
from tests.training.test_loop import saved
from training import carries, loop, momentum

DECAY, BATCHES, STEPS = 0.5, 3, 4


def config(**changes):
    """SGD, because Adam divides by a root that turns the last bit of a tiny gradient into a visible step."""
    steady = dict(optimizer__schedule=dict(name="constant", options={}), optimizer__name="sgd", optimizer__options={})
    made = tiny.config(train__steps=STEPS, **steady | changes)
    made.model.momentum.slow = dict(views=("text",), decay=DECAY)
    made.train.carries.queue = dict(name="queue", inputs=dict(z="z_text_slow", id="id"), options=dict(batches=BATCHES))
    options = dict(hardest=8, mixed=8, with_query=4, in_batch=False)
    made.losses.main = dict(name="mochi", inputs=dict(zq="z_image", zp="z_text_slow"), weight=1.0, options=options)
    made.losses.also = dict(name="infonce", inputs=dict(zq="z_image", zp="z_text"), weight=1.0, options={})
    made.model.towers.text.options.dropout = 0.5
    return made


def states(made, workdir, **mesh):
    """The run, its batches, and its state before the first step and after each one, as numpy."""
    run = tiny.prepare(made, workdir, **mesh)
    with jax.set_mesh(run.mesh), run.data.iterate(0) as batches:
        shardings = jax.tree.map(lambda s: s.sharding, run.abstract)
        state = jax.jit(run.init, out_shardings=shardings)()
        update = jax.jit(run.step, out_shardings=(shardings, meshes.replicated(run.mesh)))
        found, given = [jax.tree.map(np.asarray, state)], []
        for _ in range(STEPS):
            given.append({name: array for name, array in next(batches).items() if name in run.spec})
            stop = np.zeros(len(given[-1]["id"]), np.uint8)
            state, _ = update(state, meshes.place_batch(given[-1] | {"stop": stop}, run.mesh), np.bool_(False))
            found.append(jax.tree.map(np.asarray, state))
        return run, given, found


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return states(config(), tmp_path_factory.mktemp("alone"))


def test_an_average_begins_as_its_tower_and_moves_after_the_optimizer(alone):
    _, _, found = alone
    params = [by_path(state.params) for state in found]
    expected = {path: leaf for path, leaf in params[0].items() if path.startswith("towers_text/")}
    for at, state in enumerate(found):
        if at:
            expected = {path: DECAY * old + (1 - DECAY) * params[at][path] for path, old in expected.items()}
        assert set(state.momentum) == {"slow"} and set(state.momentum["slow"]) == set(expected)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.momentum["slow"], expected)
    assert (expected["towers_text/projection/kernel"] != params[0]["towers_text/projection/kernel"]).any()


def test_the_queue_holds_the_last_batches_in_their_order(alone):
    _, given, found = alone
    for done, state in enumerate(found):
        queue = state.carry["queue"]
        count = min(done, BATCHES)
        np.testing.assert_array_equal(queue["weight"], np.repeat([0, 1], [BATCHES - count, count])[:, None].repeat(16, 1))
        for at, batch in enumerate(given[done - count : done]):
            np.testing.assert_array_equal(queue["id"][BATCHES - count + at], batch["id"])
        assert (queue["z"][: BATCHES - count] == 0).all()


def test_a_batch_enters_the_queue_without_being_sent():
    mesh, kept = meshes.make(devices=jax.devices()), carries.Carry("queue", carries.Queue(BATCHES), {"z": "z"})
    shape = jax.ShapeDtypeStruct((16, 4), jnp.float32, sharding=meshes.batch_sharding(mesh))
    placed = carries.place([kept], jax.eval_shape(lambda: carries.init([kept], {"z": shape})), mesh)
    enter = jax.jit(lambda state, z: carries.update([kept], state, {"z": z}), out_shardings=jax.tree.map(lambda s: s.sharding, placed))
    program = enter.lower(placed, shape).compile().as_text()
    assert "f32[3,2,4]" in program and not [word for word in ("all-", "collective") if word in program]


def test_what_is_queued_is_the_average_before_the_update_without_dropout(alone):
    run, given, found = alone
    params = from_paths(by_path(found[-2].params) | found[-2].momentum["slow"])
    batch = jax.tree.map(jnp.asarray, {name: given[-1][name] for name in ("text", "text_mask")})
    expected = run.model.apply({"params": jax.tree.map(jnp.asarray, params)}, batch)["z_text"]
    np.testing.assert_allclose(found[-1].carry["queue"]["z"][-1], expected, atol=1e-6)


@pytest.mark.many_processes  # compiles a step for eight devices
def test_neither_mesh_nor_microbatches_change_it(alone, tmp_path):
    changes, mesh = dict(train__microbatches=2), dict(data=2, fsdp=2, tensor=2)
    devices = jax.devices()[: np.prod(list(mesh.values()))]
    run, _, found = states(config(**changes), tmp_path, devices=devices, **mesh)
    parts = lambda state: (state.params, state.momentum, state.carry)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=5e-6), parts(found[-1]), parts(alone[2][-1]))
    split = {leaf.sharding.spec for leaf in run.abstract.carry["queue"].values()}
    assert split == {jax.P(None, ("data", "fsdp"))}
    assert all(leaf.sharding == by_path(run.abstract.params)[path].sharding for path, leaf in run.abstract.momentum["slow"].items())


@pytest.mark.many_processes  # compiles a whole run
def test_a_run_goes_on_with_its_average_and_its_queue(tmp_path):
    made = config()
    tiny.train(made, tmp_path / "whole")
    made.train.steps = 2
    tiny.train(made, tmp_path / "halves")
    made.train.steps = STEPS
    assert tiny.train(made, tmp_path / "halves") == loop.Outcome(STEPS, False)
    for item in ("params", "opt", "momentum", "carry"):
        both = (saved(tmp_path / name, made, STEPS, item) for name in ("whole", "halves"))
        jax.tree.map(np.testing.assert_array_equal, *both)


def test_a_run_without_them_keeps_nothing(tmp_path):
    run = tiny.prepare(tiny.config(), tmp_path)
    assert not jax.tree.leaves((run.abstract.momentum, run.abstract.carry))


def test_what_is_left_after_training_has_no_average():
    assert dual.alone(config().model).momentum.to_dict() == {}


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(views=("texts",)), "config.model.momentum.slow.views is 'texts', .* Did you mean 'text'"),
        (dict(decay=1.0), "decay 1.0; it needs a view, and a decay such as 0.999"),
        (dict(views=()), "it needs a view"),
    ],
)
def test_an_average_that_cannot_be_is_refused(change, said):
    made = config().model
    made.momentum.slow.update(change)
    with pytest.raises(ConfigError, match=said):
        momentum.make(made)
    made = config().model
    made.views.text_slow, made.companions = "text", ()
    with pytest.raises(ConfigError, match="as the view text_slow does"):
        momentum.make(made)
    made.companions = ("text",)
    with pytest.raises(ConfigError, match="read by text, which never moves"):
        momentum.make(made)


def test_a_carry_that_cannot_be_is_refused(tmp_path):
    made = config()
    made.train.carries.queue.inputs.z = "z_text_fast"
    with pytest.raises(
        ConfigError, match=r"config.train.carries.queue.inputs.z asks for 'z_text_fast', but a step has only: .*z_text_slow"
    ):
        tiny.prepare(made, tmp_path)
    for change, said in (
        (dict(name="que"), "config.train.carries.queue.name is 'que'.*Did you mean 'queue'"),
        (dict(options=dict(batches=0)), "options.batches is 0; set it to 1 or more"),
        (dict(inputs=dict(z="layers_pooled_text")), "queue.inputs.z is 'layers_pooled_text', states of all layers.* 'z_text'"),
        (dict(inputs={}), "inputs is empty"),
    ):
        with pytest.raises(ConfigError, match=said):
            carries.make(
                dict(
                    queue=tiny.config(train__carries__queue=dict(name="queue", inputs=dict(z="z"), options={}) | change).train.carries.queue
                )
            )
