"""MoCHi against its definition, and what follows exactly from it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses.infonce import infonce
from losses.mochi import _mixtures, draw, mochi, pick
from tests.losses import drawn
from tests.losses.test_contracts import on
from tests.oracles import mixing

OPTIONS = dict(hardest=4, mixed=6, with_query=3)
QUEUE = ("queue_z", "queue_weight", "queue_id")
PAIRS = ("zq", "zp", "logit_scale", "id")


def given(seed=0, queries=6, batches=3, hard=2, width=5, dtype=np.float64):
    """Arrays of a step with a queue whose oldest batch is still empty; labels repeat now and then."""
    rng = np.random.default_rng(seed + 1)
    arrays = drawn.batch(seed, queries, queries, width, hard, 3 * queries, 0, dtype)
    weight = np.ones((batches, queries))
    weight[0] = 0
    return arrays | {
        "queue_z": drawn.unit(rng.normal(size=(batches, queries, width))).astype(dtype),
        "queue_weight": weight.astype(np.float32),
        "queue_id": rng.integers(0, 3 * queries, (batches, queries)).astype(np.int32),
        "alias": np.arange(queries, dtype=np.int32),
    }


def take(arrays, *names):
    return {name: jnp.asarray(arrays[name]) for name in names}


def value(arrays, seed=None, **options):
    key = {} if seed is None else dict(key=jax.random.key(seed))
    return compiled(frozenset((OPTIONS | options).items()))(**arrays, **key)[0]


@functools.cache
def compiled(options):
    return jax.jit(functools.partial(mochi, **dict(options)))


def negatives_of(arrays, in_batch, negatives, queue, hard):
    """The negatives of each query, one by one."""
    lists = []
    for i, label in enumerate(arrays["id"]):
        found = [z for j, z in enumerate(arrays["zp"]) if in_batch and arrays["id"][j] != label]
        if hard:
            found += [z for j, rows in enumerate(arrays["zn"]) if negatives == "all" or i == j for z in rows]
        if queue:
            flat = lambda name: arrays[name].reshape(-1, *arrays[name].shape[2:])
            found += [z for z, w, other in zip(*map(flat, QUEUE), strict=True) if w and other != label]
        lists.append(found)
    return lists


@pytest.mark.parametrize(
    "in_batch, negatives, queue, hard",
    [(True, "all", True, True), (False, "all", True, False), (True, "own", False, True), (True, "all", False, False)],
)
def test_value_is_the_definition(in_batch, negatives, queue, hard):
    with jax.enable_x64(True):
        arrays = given()
        names = (*PAIRS, *(QUEUE if queue else ()), *(("zn",) if hard else ()))
        lists = negatives_of(arrays, in_batch, negatives, queue, hard)
        for seed in (None, 3):
            draws = None if seed is None else jax.tree.map(np.asarray, draw(jax.random.key(seed), jnp.asarray(arrays["zq"]), 6, 3))
            expected = mixing.mochi(arrays["zq"], arrays["zp"], float(arrays["logit_scale"]), lists, draws, OPTIONS["hardest"])
            found = value(take(arrays, *names), seed, in_batch=in_batch, negatives=negatives)
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_mixtures_are_constants_and_the_query_is_pulled_by_each():
    """The gradient is that of a loss in which the mixtures, the query's copy in them too, are plain given vectors."""
    with jax.enable_x64(True):
        arrays, key = given(), jax.random.key(3)
        names = (*PAIRS, *QUEUE)
        lists = negatives_of(arrays, True, "all", True, False)
        draws = jax.tree.map(np.asarray, draw(key, jnp.asarray(arrays["zq"]), 6, 3))
        scale, labels = arrays["logit_scale"], arrays["id"]

        def explicit(leaves):
            total = 0.0
            for i, found in enumerate(lists):
                order = sorted(range(len(found)), key=lambda j: -float(arrays["zq"][i] @ found[j]))[: OPTIONS["hardest"]]
                fixed = mixing.mixtures(arrays["zq"][i], [found[j] for j in order], i, draws)
                queued = found[sum(other != labels[i] for other in labels) :]  # those of the batch come first
                in_batch = [leaves["zp"][j] for j in range(len(labels)) if labels[j] != labels[i]]
                logits = scale * jnp.stack([leaves["zp"][i], *in_batch, *queued, *fixed]) @ leaves["zq"][i]
                total += jax.nn.logsumexp(logits) - logits[0]
            return total

        leaves = take(arrays, "zq", "zp")
        fixed = take(arrays, *(name for name in names if name not in leaves))
        expected = jax.jit(jax.grad(explicit))(leaves)
        total = lambda leaves, fixed: mochi(**leaves, **fixed, key=key, **OPTIONS)[0].sum()
        found = jax.jit(jax.grad(total))(leaves, fixed)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10), found, expected)
        queue = jax.jit(jax.grad(lambda z: total(leaves, fixed | {"queue_z": z})))(fixed["queue_z"])
        np.testing.assert_array_equal(queue, 0)


def test_without_mixtures_and_queue_it_is_infonce():
    arrays = drawn.inputs(infonce, drawn.batch(hard=1), without=("zp_weight",))
    expected = jax.jit(functools.partial(infonce, symmetric=False, positives="exclude"))(**arrays)[0]
    np.testing.assert_allclose(value(arrays, 0, mixed=0, with_query=0), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(value(arrays), expected, rtol=1e-5, atol=1e-6)


def test_mixtures_never_lower_the_loss():
    arrays = take(given(), *PAIRS, *QUEUE)
    plain, two, both = value(arrays), value(arrays, 1, with_query=0), value(arrays, 1)
    assert (two > plain).all() and (both > two).all()  # both draw the same pairs: the key is split by purpose


def test_a_mixture_is_no_copy_and_nearer_than_the_farther_of_its_parts():
    rng = np.random.default_rng(0)
    zq = jnp.asarray(drawn.unit(rng.normal(size=(64, 8))))
    draws = draw(jax.random.key(0), zq, 32, 32)
    first, second, _ = (np.asarray(places) for places in pick(draws, jnp.full((64, 1), 7)))
    assert (first != second).all() and set(first.ravel()) == set(second.ravel()) == set(range(7))
    draws = jax.tree.map(np.asarray, draws)
    for i, q in enumerate(np.asarray(zq)):
        chosen = [n for n in drawn.unit(rng.normal(size=(40, 8))) if q @ n > 0][:7]
        made = mixing.mixtures(q, chosen, i, draws)
        for h, one, other in zip(made, first[i], second[i], strict=False):
            if len(chosen) == 7:
                assert q @ h >= min(q @ chosen[one], q @ chosen[other]) - 1e-6
        for h, place in zip(made[32:], draws.one[i], strict=True):
            part = chosen[int(place * len(chosen))]
            assert q @ h >= q @ part - 1e-6 and h @ part > h @ q


def test_the_losss_own_mixtures_are_nearer_than_the_farther_of_their_parts():
    rng = np.random.default_rng(0)
    zq, table = (jnp.asarray(drawn.unit(rng.normal(size=(rows, 8))), jnp.float32) for rows in (64, 40))

    @jax.jit
    def made(zq, table):
        draws = draw(jax.random.key(0), zq, 32, 16)
        return _mixtures(zq, table, jnp.ones((64, 40), bool), draws, 7, "float32"), pick(draws, jnp.full((64, 1), 7))

    ((two, _), (harder, _)), places = jax.tree.map(np.asarray, made(zq, table))
    nearest = -np.sort(-np.asarray(zq) @ np.asarray(table).T, axis=1)[:, :7]
    assert (nearest > 0).all()
    first, second, one = (np.take_along_axis(nearest, place, 1) for place in places)
    assert (two >= np.minimum(first, second) - 1e-6).all() and (two > np.maximum(first, second)).any()
    assert (harder >= one - 1e-6).all() and (harder < np.sqrt((1 + one) / 2) + 1e-6).all()  # nearer its part than the query: below half-way


def test_rows_draw_their_own():
    """Each query mixes its own neighbours: dropping the other rows changes nothing but the negatives that they were."""
    arrays = given()
    names = ("zq", "zp", "logit_scale", *QUEUE)
    whole = value(take(arrays, *names), 3, in_batch=False)
    short = {name: array if name == "logit_scale" or "queue" in name else array[:4] for name, array in take(arrays, *names).items()}
    np.testing.assert_allclose(value(short, 3, in_batch=False), whole[:4], rtol=1e-6)


@pytest.mark.parametrize("mesh", [(2, 2, 2)], ids=str)
def test_value_and_gradient_ignore_the_mesh(mesh):
    arrays = take(given(queries=16, dtype=np.float32), *PAIRS, *QUEUE)
    total = lambda zq, rest: (lambda v: (v.sum(), v))(mochi(zq, **rest, key=jax.random.key(1), **OPTIONS)[0])
    run = jax.jit(jax.grad(total, has_aux=True))
    rest = lambda arrays: {name: array for name, array in arrays.items() if name != "zq"}
    expected = run(arrays["zq"], rest(arrays))
    auto, devices = (jax.sharding.AxisType.Auto,) * 3, jax.devices()[: np.prod(mesh)]
    with jax.set_mesh(made := jax.make_mesh(mesh, ("data", "fsdp", "tensor"), axis_types=auto, devices=devices)):
        split = jax.NamedSharding(made, jax.P(None, ("data", "fsdp")))
        placed = on(made, take(arrays, *PAIRS)) | {name: jax.device_put(arrays[name], split) for name in QUEUE}
        found = run(placed["zq"], rest(placed))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), found, expected)


@pytest.mark.parametrize(
    "options, said",
    [
        (dict(in_batch=False), r"no negatives; set config.losses.<label>.options.in_batch to True, or map .inputs.queue_z"),
        (dict(hardest=1), "hardest to 2 or more"),
        (dict(mixed=-1), "mixed -1"),
    ],
)
def test_what_cannot_be_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        value(take(given(), *PAIRS), **options)
