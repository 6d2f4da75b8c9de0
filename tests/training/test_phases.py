"""Losses that take turns, weights that change, and hidden states mixed inside a tower."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from core import mesh as meshes
from core.config import ConfigError
from core.logbook import read_lines
from core.paths import by_path
from losses.entries import entries, phases
from models import dual
from tests import tiny
from tests.models import toys
from tests.training.test_heads import same_movement
from tests.training.test_loop import saved
from training import loop, mixing
from training.forward import example_keys, loss_key

GROUP = 2


def config(**changes):
    steady = dict(optimizer__schedule=dict(name="constant", options={}), optimizer__name="sgd", optimizer__options={})
    made = tiny.config(train__steps=4, **steady | changes)
    made.model.mixing.mixed = dict(views=("text",), group=GROUP)
    made.model.towers.text.options.update(dropout=0.5, layers=2, causal=False, pooling="mean")
    plain, mixed = dict(zq="z_image", zp="z_text"), dict(zq="z_text_mixed", zp="z_image")
    mixed |= dict(share="share_text_mixed", partner="partner_text_mixed")
    made.losses.main = dict(name="simclr", inputs=plain, weight=1.0, options=dict(weighted=True), until_step=2)
    made.losses.mixed = dict(name="mi_mix", inputs=mixed, weight=1.0, options={}, from_step=2)
    weight = dict(name="linear", options=dict(start=0.0, end=1.0, over_steps=4))
    made.losses.beside = dict(name="m2_mix", inputs=plain, weight=weight, options={})
    return made


def updates(made, workdir, **mesh):
    """The run, its first batch, and parameters before and after two updates by the losses of the second phase, with the metrics of both."""
    run = tiny.prepare(made, workdir, **mesh)
    with jax.set_mesh(run.mesh), run.data.iterate(0) as batches:
        shardings = jax.tree.map(lambda s: s.sharding, run.abstract)
        state = jax.jit(run.init, out_shardings=shardings)()
        update = jax.jit(run.step, out_shardings=(shardings, meshes.replicated(run.mesh)), static_argnames="active")
        batch = {name: array for name, array in next(batches).items() if name in run.spec}
        stop = np.zeros(len(batch["id"]), np.uint8)
        placed, before, metrics = meshes.place_batch(batch | {"stop": stop}, run.mesh), by_path(state.params), []
        for _ in range(2):  # the rate of the first is 0
            state, found = update(state, placed, np.bool_(False), active=run.active(2))
            metrics.append(found)
        return run, batch, *jax.tree.map(np.asarray, (before, by_path(state.params), metrics))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return updates(config(), tmp_path_factory.mktemp("alone"))


@pytest.mark.many_processes  # compiles steps
def test_a_step_has_the_losses_of_its_phase(alone):
    run, *_, (metrics, _) = alone
    assert run.phases == {0: ("beside", "main"), 2: ("beside", "mixed")}
    assert [run.active(step)[1] for step in range(4)] == ["main", "main", "mixed", "mixed"]
    assert "train/mixed" in metrics and "train/main" not in metrics
    assert metrics["train/beside_weight"] == 0 and metrics["train/loss"] == metrics["train/mixed"]
    assert 0.5 <= metrics["train/mixed_share"] <= 1


@pytest.mark.many_processes
def test_neither_mesh_nor_microbatches_change_what_is_mixed(alone, tmp_path):
    _, _, before, after, expected = alone
    found = updates(config(train__microbatches=2), tmp_path, devices=jax.devices(), data=2, fsdp=2, tensor=2)
    same_movement(before, after, found[3])
    for one, other in zip(found[4], expected, strict=True):
        np.testing.assert_allclose(one["train/mixed"], other["train/mixed"], rtol=2e-5)


@pytest.mark.many_processes
def test_a_mixed_row_is_its_own_and_its_partners_states_after_one_layer(alone):
    """Against a hook that mixes whole batches after each layer in turn: one of them is what the run drew."""
    run, batch, *_ = alone
    keys = example_keys(0, jnp.zeros((), jnp.int32), run.model.views, 16)
    (mixed,) = run.forward.mixing
    named = {name: np.asarray(array) for name, array in mixed.named(keys).items()}
    share, partner = named["share_text_mixed"], named["partner_text_mixed"]
    assert (sorted(partner) == np.arange(16)).all() and (partner // GROUP == np.arange(16) // GROUP).all()
    assert (partner != np.arange(16)).any() and ((share >= 0.5) & (share <= 1)).all()
    params, text = jax.jit(run.init)().params, {name: jnp.asarray(batch[name]) for name in ("text", "text_mask")}
    found = run.model.apply({"params": params}, text, keys, hooks=mixed.hooks(keys, step_key=jax.random.key(1)))["z_text"]

    def at(layer):
        part = jnp.asarray(share)[:, None, None]
        mix = lambda i, x, mask: (part * x + (1 - part) * x[partner], mask & mask[partner]) if i == layer else (x, mask)
        return run.model.apply({"params": params}, text, keys, hooks={"text": mix})["z_text"]

    distances = [np.abs(found - at(layer)).max() for layer in range(3)]
    assert sorted(distance < 1e-5 for distance in distances) == [False, False, True]


@pytest.mark.parametrize("view, layers", [("image", 1), ("text", 3)])
def test_each_step_mixes_after_one_layer_and_after_each_as_often(view, layers):
    rows, steps = 8, 400
    mixed = mixing.Mixing("mixed", ("image", "text"), (1, 3), GROUP)
    keys, x = example_keys(0, jnp.zeros((), jnp.int32), mixed.views, rows), jax.random.normal(jax.random.key(0), (rows, 2, 3))

    def changed(step):
        hook = mixed.hooks(keys, step_key=loss_key(0, step))[view]
        return jnp.stack([jnp.abs(hook(i, x, None)[0] - x).max((1, 2)) > 1e-6 for i in range(layers + 1)])

    found = np.asarray(jax.jit(jax.vmap(changed))(jnp.arange(steps)))  # [steps layers rows]
    alone = np.asarray(mixed.named(keys)[f"partner_{view}_mixed"]) == np.arange(rows)
    assert alone.any() and not alone.all()
    np.testing.assert_array_equal(found.sum(1), np.broadcast_to(~alone, (steps, rows)))  # its own partner stays as it is
    at = found.any(2)
    assert (at.sum(1) == 1).all()
    chance = 1 / (layers + 1)
    np.testing.assert_allclose(at.mean(0), chance, atol=4 * np.sqrt(chance * (1 - chance) / steps))


@pytest.mark.parametrize("name", ["text", "decoder"])
def test_a_causal_tower_pools_the_tokens_that_count_in_both_inputs(name):
    tower, (ids, mask), keys = toys.tower(name, causal=True, pooling="mean", embed_dim=0), toys.texts(rows=8), {"text": toys.keys(8)}
    mixed, params = mixing.Mixing("mixed", ("text",), (tower.layers,), GROUP), toys.init(tower, ids, mask)
    both = mask & mask[mixed.named(keys)["partner_text_mixed"]]
    shorter = (both != mask).any(1)
    assert shorter.any()

    @jax.jit
    def read(ids, step):
        hook = mixed.hooks(keys, step_key=loss_key(0, step))["text"]
        return tower.apply({"params": params}, ids, mask, capture=("tokens",), hook=hook)

    for step in range(6):  # so that each layer has its turn
        found = read(ids, step)
        mean = lambda mask, tokens=found["tokens"]: (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        np.testing.assert_allclose(found["embedding"], mean(both), atol=1e-5)
        assert (np.abs(found["embedding"] - mean(mask)).max(1)[shorter] > 1e-2).all()
        np.testing.assert_allclose(read(jnp.where(both, ids, 17), step)["embedding"], found["embedding"], atol=1e-5)
        assert (np.abs(read(ids.at[:, 0].set(17), step)["embedding"] - found["embedding"]).max(1) > 1e-2).all()


@pytest.mark.many_processes  # compiles a whole run, twice
def test_a_run_goes_on_across_a_phase(tmp_path):
    made = config()
    tiny.train(made, tmp_path / "whole")
    made.train.steps = 3
    tiny.train(made, tmp_path / "parts")
    made.train.steps = 4
    assert tiny.train(made, tmp_path / "parts") == loop.Outcome(4, False)
    for item in ("params", "opt"):
        both = (saved(tmp_path / name, made, 4, item) for name in ("whole", "parts"))
        jax.tree.map(np.testing.assert_array_equal, *both)
    lines = read_lines(tmp_path / "whole" / "metrics.jsonl")
    assert [("train/main" in line, "train/mixed" in line) for line in lines] == [(True, False)] * 2 + [(False, True)] * 2
    assert [line["train/beside_weight"] for line in lines] == [0, 0.25, 0.5, 0.75]


def test_losses_that_never_meet_a_step_are_refused():
    losses = config().losses
    for change, said in (
        (dict(from_step=3), "no loss is active after step 2"),
        (dict(from_step=3, until_step=3), "config.losses.mixed is active from step 3 until 3: never"),
        (dict(weight=dict(name="line", options={})), "config.losses.mixed.weight.name is 'line'.*Did you mean 'linear'"),
        (dict(weight=dict(name="linear", options=dict(stop=1.0))), "config.losses.mixed.weight.options.stop is not a key"),
    ):
        made = losses.to_dict()
        made = ConfigDict({"matmul_dtype": "float32", "main": made["main"], "mixed": made["mixed"] | change})
        with pytest.raises(ConfigError, match=said):
            phases(entries(made), 4)


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(group=3), "16 rows of a device's microbatch do not split into groups of 3; set config.model.mixing.mixed.group to 2"),
        (dict(group=1), "do not split into groups of 1"),
        (dict(views=("texts",)), "config.model.mixing.mixed.views is 'texts'"),
        (dict(views=()), "read by nothing"),
    ],
)
def test_what_cannot_be_mixed_is_refused(change, said):
    model = config().model
    model.mixing.mixed.update(change)
    with pytest.raises(ConfigError, match=said):
        mixing.make(model, dual.build(model).towers, 16)


def test_a_tower_that_reads_the_end_of_a_text_is_not_mixed():
    model = config().model
    model.towers.text.options.pooling = "eos"
    with pytest.raises(ConfigError, match="text would read an end that its partner lacks; set its options.pooling to 'mean' or 'last'"):
        mixing.make(model, dual.build(model).towers, 16)
