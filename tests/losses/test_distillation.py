"""A student that follows a teacher's scores: both losses by definition, and what follows exactly from them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from core import mesh as meshes
from losses.rank_distill import rank_distill
from losses.score_distill import score_distill
from tests.losses import drawn
from tests.oracles import distillation

RNG = np.random.default_rng(0)


def scored(scores=1, of_teacher=None, rows=8):
    label = RNG.integers(0, max(scores, 2), rows).astype(np.int32)
    return dict(score=RNG.normal(size=(rows, scores)), teacher=3 * RNG.normal(size=(rows, of_teacher or scores)), label=label)


def arrays_of(found, dtype=np.float32):
    return {name: jnp.asarray(a if a.dtype == np.int32 else a.astype(dtype)) for name, a in found.items()}


@functools.partial(jax.jit, static_argnums=0, static_argnames=("share", "temperature", "kind"))
def value(loss, arrays, **options):
    return loss(**arrays, **options)[0]


@functools.partial(jax.jit, static_argnames=("share",))
def gradient(arrays, **options):
    def mean(score):
        found, weight, _ = score_distill(**(arrays | dict(score=score)), **options)
        return (found * weight).sum() / weight.sum(), found

    return jax.grad(mean, has_aux=True)(arrays["score"])


@pytest.mark.parametrize("scores, of_teacher, share", [(1, 1, 0.5), (1, 2, 0.3), (3, 3, 0.7)])
def test_value_is_the_definition(scores, of_teacher, share):
    with jax.enable_x64(True):
        found = scored(scores, of_teacher)
        expected = distillation.score_distill(*found.values(), share, 2.0)
        np.testing.assert_allclose(value(score_distill, arrays_of(found, np.float64), share=share, temperature=2.0), expected, rtol=1e-12)


def test_a_share_of_0_or_1_is_one_part_alone():
    found = scored()
    arrays = arrays_of(found)
    label, distance = (distillation.score_distill(*found.values(), share, 1.0) for share in (0, 1))
    without = lambda name: {key: a for key, a in arrays.items() if key != name}
    np.testing.assert_allclose(value(score_distill, without("teacher"), share=0.0), label, rtol=1e-5)
    np.testing.assert_allclose(value(score_distill, without("label"), share=1.0), distance, rtol=1e-5)
    for name, other in (("teacher", 0.0), ("label", 1.0)):
        with pytest.raises(ValueError, match=rf"there is no {name}; map config.losses.<label>.inputs.{name}.*options.share to {other}"):
            value(score_distill, without(name))


def test_only_the_difference_of_two_logits_counts():
    arrays = arrays_of(scored(1, 2))
    arrays["teacher"] = jnp.round(arrays["teacher"])  # so that a sum with 64 is exact
    np.testing.assert_array_equal(value(score_distill, arrays), value(score_distill, arrays | dict(teacher=arrays["teacher"] + 64)))


def test_a_column_of_single_numbers_is_one_score_each():
    arrays = arrays_of(scored())
    np.testing.assert_array_equal(value(score_distill, arrays | dict(teacher=arrays["teacher"][:, 0])), value(score_distill, arrays))


def test_padding_changes_nothing_of_scores():
    arrays = arrays_of(scored())
    short = {name: array[:5] for name, array in arrays.items()}
    padded = arrays | {name: arrays[name].at[5:].set(jnp.nan) for name in ("score", "teacher")}
    weight = jnp.asarray(np.r_[RNG.uniform(1, 2, 5), 0, 0, 0], jnp.float32)
    found, whole = gradient(padded | dict(weight=weight), share=0.5)
    expected, alone = gradient(short | dict(weight=weight[:5]), share=0.5)
    np.testing.assert_allclose(whole, np.r_[alone, 0, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(found, np.r_[expected, np.zeros((3, 1))], rtol=1e-6)


def test_scores_ignore_the_mesh():
    arrays = arrays_of(scored(rows=16)) | dict(weight=jnp.asarray(RNG.uniform(1, 2, 16), jnp.float32))
    mesh = meshes.make(2, 2, 2, devices=jax.devices())
    with jax.set_mesh(mesh):
        split = {name: jax.device_put(a, jax.sharding.NamedSharding(mesh, P(("data", "fsdp")))) for name, a in arrays.items()}
        found = gradient(split, share=0.5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, gradient(arrays, share=0.5))


@pytest.mark.parametrize(
    "change, options, said",
    [
        (dict(), dict(share=1.5), "options.share from 0 to 1"),
        (dict(), dict(temperature=0.0), "temperature above 0"),
        (dict(teacher=jnp.zeros((8, 3))), {}, "config.model.heads.<label>.options.scores to 3"),
    ],
)
def test_scores_that_cannot_be_followed_are_refused(change, options, said):
    with pytest.raises(ValueError, match=said):
        score_distill(**(arrays_of(scored()) | change), **options)


@pytest.mark.parametrize("kind", ["kl", "margin"])
def test_rank_value_is_the_definition(kind):
    with jax.enable_x64(True):
        arrays = {name: jnp.asarray(drawn.batch(padded=0, dtype=np.float64)[name]) for name in ("zq", "zp", "zn", "teacher", "logit_scale")}
        cosines = np.einsum("bd,bcd->bc", arrays["zq"], np.concatenate([arrays["zp"][:, None], arrays["zn"]], axis=1))
        expected = distillation.rank_distill(cosines, np.asarray(arrays["teacher"]), kind, float(arrays["logit_scale"]), 2.0)
        np.testing.assert_allclose(value(rank_distill, arrays, kind=kind, temperature=2.0), expected, rtol=1e-11)


@pytest.mark.parametrize("kind", ["kl", "margin"])
def test_a_student_that_agrees_has_nothing_to_learn(kind):
    arrays = {name: jnp.asarray(drawn.batch(padded=0)[name]) for name in ("zq", "zp", "zn", "logit_scale")}
    cosines = jnp.einsum("bd,bcd->bc", arrays["zq"], jnp.concatenate([arrays["zp"][:, None], arrays["zn"]], axis=1))
    goal = arrays["logit_scale"] * cosines + jnp.arange(8.0)[:, None]
    found, slope = jax.value_and_grad(lambda zq: value(rank_distill, arrays | dict(zq=zq, teacher=goal), kind=kind).sum())(arrays["zq"])
    np.testing.assert_allclose(found, 0, atol=1e-5)
    np.testing.assert_allclose(slope, 0, atol=1e-4)


@pytest.mark.parametrize(
    "change, options, said",
    [
        (dict(zn=None), {}, "config.losses.<label>.inputs.zn"),
        (dict(teacher=jnp.zeros((8, 2))), {}, "2 scores of a teacher for a passage and 2 negatives.*inputs.teacher name 3"),
        ({}, dict(kind="mse"), "options.kind to one of: kl, margin"),
    ],
)
def test_a_ranking_that_cannot_be_followed_is_refused(change, options, said):
    arrays = {name: jnp.asarray(drawn.batch(padded=0)[name]) for name in ("zq", "zp", "zn", "teacher", "logit_scale")}
    with pytest.raises(ValueError, match=said):
        rank_distill(**(arrays | change), **options)
