"""Pretraining on single texts, and a second stage that starts from it."""

import functools

import jax
import numpy as np
import pytest

import interop
from configs import pretrain_text
from core.checkpoint import restore
from core.config import ConfigError
from core.paths import by_path
from core.workdir import claim_config
from tests import tiny
from tests.training.test_heads import STEADY, updated
from training import loop

DECODER = "heads/head/decoder/"


def config(arg, **changes):
    """`configs/pretrain_text.py` at toy size."""
    made = pretrain_text.get_config(f"{arg},smoke").unlock()
    made.model.towers.text.options.update(width=16, heads=2)
    for label in made.model.heads:
        made.model.heads[label].options.update({"heads": 2} if "heads" in made.model.heads[label].options else {})
    for name, value in (STEADY | dict(optimizer__learning_rate=0.1, train__steps=2) | changes).items():
        section, key = name.split("__")
        made[section][key] = value
    made.log.tensorboard, made.evals = False, {}
    return made


def sized(**changes):
    """Starbucks' pretraining at toy size."""
    words, sizes = 300, ((1, 4), (2, 16))
    made = config("pretrain,objective=smae", **changes)
    made.data.tokenizer.options.vocab_size, made.model.towers.text.options.vocab_size = words, words + 1
    for transform in made.data.transforms.values():
        transform.options.update(length=12, mask_id=words)
    made.model.heads.head.options.sizes, made.model.towers.text.options.layers = sizes, len(sizes)
    for side in ("encoder", "decoder"):
        del made.losses[f"{side}_3"]
        for layer, m in sizes:
            made.losses[f"{side}_{layer}"].inputs.states = f"head_{side}_{layer}x{m}"
    return made


@pytest.mark.many_processes  # compiles two steps each
@pytest.mark.parametrize("objective", ["dupmae", "smae"])
def test_a_decoder_learns_the_same_on_every_mesh_and_in_microbatches(objective, tmp_path):
    make = sized if objective == "smae" else functools.partial(config, "pretrain,objective=dupmae")
    made = make()
    _, before, after = updated(made, tmp_path / "alone")
    paths = [path for path in before if path.startswith(DECODER) and not path.endswith("key/bias")]  # softmax forgets a key's bias
    assert len(paths) > 10 and all((before[path] != after[path]).any() for path in paths)
    tables = [path for path, leaf in before.items() if leaf.shape == (made.model.towers.text.options.vocab_size, 16)]
    assert tables == ["towers_text/token_embedding"]  # one leaf for the tower, the decoder and the vocabulary
    _, _, found = updated(make(train__microbatches=2), tmp_path / "parts", devices=jax.devices(), data=2, fsdp=2, tensor=2)
    for path, expected in after.items():
        np.testing.assert_allclose(found[path], expected, atol=1e-5, err_msg=path)


@pytest.mark.many_processes  # 80 steps
def test_starbucks_pretraining_learns_one_batch_by_heart_at_every_size(tmp_path):
    made = sized(optimizer__name="adamw", optimizer__learning_rate=0.02)
    made.model.towers.text.options.dropout, made.optimizer.warmup_steps = 0.0, 0
    run = tiny.prepare(made, tmp_path)
    with run.data.iterate(0) as batches:
        batch = {name: array for name, array in next(batches).items() if name in run.spec} | {"stop": np.zeros(16, np.uint8)}
    with jax.set_mesh(run.mesh):
        state, update = jax.jit(run.init)(), jax.jit(run.step, donate_argnums=0)
        losses = []
        for _ in range(80):
            state, metrics = update(state, batch, np.bool_(False))
            losses.append({name: float(value) for name, value in metrics.items() if name.startswith("train/")})
    for label in set(made.losses) - {"matmul_dtype"}:
        assert losses[0][f"train/{label}"] > 4 and losses[-1][f"train/{label}"] < 0.5, label
        assert losses[-1][f"train/{label}_accuracy"] > 0.9, label


def test_the_second_stage_of_starbucks_has_its_sizes():
    first, second = (pretrain_text.get_config(f"{stage},objective=smae") for stage in ("pretrain", "contrast"))
    assert second.model.towers.text.options == first.model.towers.text.options
    assert second.losses.main.name == "starbucks" and second.losses.main.options.sizes == first.model.heads.head.options.sizes


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    workdir, made = tmp_path_factory.mktemp("first"), config("pretrain,objective=mlm", optimizer__ema_decay=0.5)
    claim_config(workdir, interop.resolve(made))
    assert tiny.train(made, workdir) == loop.Outcome(2, False)
    return workdir


@pytest.mark.many_processes
def test_the_second_stage_starts_from_the_first(first, tmp_path):
    made = interop.resolve(config(f"contrast,first={first}"))
    assert made.model.towers.text.options.width == 16
    run = tiny.prepare(made, tmp_path)
    with jax.set_mesh(run.mesh):
        found = by_path(loop.fresh(run).params)
    like = {path: leaf for path, leaf in by_path(run.abstract.params).items() if path.startswith("towers_text/")}
    expected = restore(first / "checkpoints", 2, "ema", like | {"log_logit_scale": run.abstract.params["log_logit_scale"]})
    assert not [path for path in found if path.startswith("heads/")] and len(like) > 10
    for path in like:
        np.testing.assert_array_equal(found[path], expected[path], err_msg=path)


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(table="towers_text/tokens"), "inputs.table asks for the parameter 'towers_text/tokens', but .*: towers_text/blocks"),
        (dict(tokens="token_text"), "inputs.tokens asks for 'token_text', but a step has only: id, key, text, text_mask, text_own"),
    ],
)
def test_an_input_that_is_not_there_is_named(change, said, tmp_path):
    made = config("pretrain,objective=mlm")
    made.model.heads.head.inputs.update(change)
    with pytest.raises(ConfigError, match=f"config.model.heads.head.{said}"):
        tiny.prepare(made, tmp_path)
