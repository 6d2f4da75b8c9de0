"""Towers in microbatches give the plain step: value, every gradient, every mesh, dropout on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from core import mesh as meshes
from core.config import ConfigError
from core.paths import by_path
from losses.entries import entries, mean_loss
from models import dual
from tests import tiny
from training import cached_gradients
from training.forward import example_keys

TOWER = dict(name="text", options=dict(vocab_size=20, length=6, width=8, layers=1, heads=2, embed_dim=8, causal=False, pooling="mean"))
TEXTS = dict(towers=dict(text=TOWER), views=dict(text="text"), adapters={}, temperature_init=0.07, logit_bias_init=None)


def gradient(made, tmp_path, count, double=False, **mesh):
    """Loss and gradient of the first batch by path, towers in `count` microbatches."""
    with jax.enable_x64(double):
        run = tiny.prepare(made, tmp_path, **mesh)
        shards = meshes.shards(run.mesh)
        with jax.set_mesh(run.mesh), run.data.iterate(0) as batches:
            batch = {name: array for name, array in next(batches).items() if name in run.spec}
            params = jax.tree.map(lambda a: a.astype(np.float64) if double else a, jax.jit(run.init)().params)

            def loss(params, batch):
                keys = example_keys(0, 0, run.model.views, made.data.global_batch)
                arrays = cached_gradients.apply(run.model, params, batch, keys, count, shards)
                return mean_loss(entries(made.losses), arrays | {"id": batch["id"]})[0]

            value, grads = jax.jit(jax.value_and_grad(loss))(params, meshes.place_batch(batch, run.mesh))
            return float(value), jax.tree.map(np.asarray, by_path(grads))


def doubled():
    made = tiny.config()
    made.model.towers.image.options.dtype = made.model.towers.text.options.dtype = "float64"
    return made


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return gradient(doubled(), tmp_path_factory.mktemp("plain"), 1, double=True)


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """In float32, with each tower's whole batch at once."""
    return gradient(tiny.config(), tmp_path_factory.mktemp("single"), 1)


@pytest.mark.parametrize("count", [2, 4, 8])
def test_the_gradient_is_the_plain_one_to_float64(count, plain, tmp_path):
    value, grads = gradient(doubled(), tmp_path, count, double=True)
    assert abs(value - plain[0]) < 1e-10
    for path, expected in plain[1].items():
        np.testing.assert_allclose(grads[path], expected, atol=1e-10, rtol=0, err_msg=path)


@pytest.mark.parametrize("data, fsdp, tensor", [(2, 2, 2)])
def test_it_composes_with_the_mesh(data, fsdp, tensor, single, tmp_path):
    made = tiny.config(model__towers__image__options__remat=True)
    devices = jax.devices()[: data * fsdp * tensor]
    value, grads = gradient(made, tmp_path, 2, devices=devices, data=data, fsdp=fsdp, tensor=tensor)
    assert abs(value - single[0]) < 1e-5
    for path, leaf in single[1].items():
        np.testing.assert_allclose(grads[path], leaf, atol=2e-5, err_msg=path)


def test_averaging_the_losses_of_parts_is_another_gradient(single, tmp_path):
    # What plain accumulation would do: half the batch, half the negatives.
    half, _ = gradient(tiny.config(data__global_batch=8), tmp_path, 1)
    assert abs(single[0] - half) > 0.1


def test_a_run_in_microbatches_is_the_plain_run(tmp_path):
    made = dict(optimizer__name="sgd", optimizer__options={}, optimizer__freeze=("^towers_text/",), train__steps=2)
    from core.logbook import read_lines

    tiny.train(tiny.config(**made), tmp_path / "plain")
    tiny.train(tiny.config(train__microbatches=4, **made), tmp_path / "cached")
    plain, cached = ([row["train/loss"] for row in read_lines(tmp_path / name / "metrics.jsonl")] for name in ("plain", "cached"))
    np.testing.assert_allclose(cached, plain, rtol=1e-6)


def test_memory_falls_with_microbatches(tmp_path):
    made = tiny.config(data__global_batch=512)
    run = tiny.prepare(made, tmp_path)
    batch = {name: jax.ShapeDtypeStruct(spec.shape, spec.dtype) for name, spec in run.spec.items()}

    def temp_bytes(count):
        def loss(params, batch):
            keys = example_keys(0, 0, run.model.views, 512)
            arrays = cached_gradients.apply(run.model, params, batch, keys, count, 1)
            return sum((a**2).sum() for name, a in arrays.items() if name.startswith("z_"))

        with jax.set_mesh(run.mesh):
            return jax.jit(jax.grad(loss)).lower(run.abstract.params, batch).compile().memory_analysis().temp_size_in_bytes

    assert temp_bytes(8) < 0.4 * temp_bytes(1)


@pytest.mark.parametrize("count, fits", [(3, 2), (32, 16), (0, 1)])
def test_microbatches_that_do_not_divide_name_one_that_does(count, fits):
    with pytest.raises(
        ConfigError, match=f"16 rows of a device do not split into {count} microbatches; set config.train.microbatches to {fits}"
    ):
        cached_gradients.check(count, 16, 1)


def test_plain_accumulation_is_refused_with_a_pointer(tmp_path):
    with pytest.raises(ConfigError, match="config.train.accumulate_steps would average .*set config.train.microbatches instead"):
        tiny.prepare(tiny.config(train__accumulate_steps=2), tmp_path)


def test_a_mask_of_pooling_goes_with_its_rows():
    """Tokens that are read but not pooled: their mask reaches the towers in microbatches too."""
    model = dual.build(ConfigDict(TEXTS))
    rng = np.random.default_rng(0)
    pooled = np.arange(6) >= rng.integers(1, 4, (4, 1))
    batch = dict(text=rng.integers(3, 20, (4, 6)), text_mask=np.ones((4, 6), bool), text_pool_mask=pooled)
    batch = jax.tree.map(jnp.asarray, batch)
    params = model.init(jax.random.key(0), batch)["params"]
    whole = cached_gradients.apply(model, params, batch, {}, 1, 1)["z_text"]
    with jax.set_mesh(meshes.make(devices=jax.devices()[:1])):
        parts = jax.jit(lambda: cached_gradients.apply(model, params, batch, {}, 2, 1)["z_text"])()
    np.testing.assert_allclose(parts, whole, atol=1e-6)
    del batch["text_pool_mask"]
    assert np.abs(cached_gradients.apply(model, params, batch, {}, 1, 1)["z_text"] - whole).max() > 1e-2
