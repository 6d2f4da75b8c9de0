"""What devices send each other in a compiled train step, read from its program: embeddings, gradients once, nothing else."""

import collections
import math
import re
from typing import NamedTuple

import jax
import numpy as np
import pytest

from core import mesh as meshes
from core.paths import by_path, matches
from tests import tiny
from training import plan as plans
from training import programs

BATCH, D, DEVICES = 24, 16, 8  # 24: no parameter has an axis of this size
BYTES = {"f32": 4, "s32": 4, "u32": 4, "u8": 1, "pred": 1}
METHODS = ("dense", "gather", "ring")


class Collective(NamedTuple):
    """One line of the program: its results as (dtype, shape), how often it runs, and where it comes from."""

    kind: str
    results: tuple[tuple[str, tuple[int, ...]], ...]
    times: int
    source: str

    def sent(self, result) -> int:
        """Bytes that a device sends for one result, by ring algorithms over all devices."""
        size = self.times * BYTES[result[0]] * math.prod(result[1])
        rest = DEVICES - 1
        return {
            "all-gather": size * rest // DEVICES, "all-reduce": 2 * size * rest // DEVICES, "reduce-scatter": size * rest,
            "collective-permute": size,
        }[self.kind]  # fmt: skip


def collectives(text: str) -> list[Collective]:
    """Those of every step; the health metrics, measured where a step is logged, are in a branch that does not count."""
    times = {}
    for body, count in re.findall(r" while\(.*body=%([\w.-]+),.*\"known_trip_count\":\{\"n\":\"(\d+)\"", text):
        times[body] = int(count)
    found, computation = [], None
    for line in text.splitlines():
        if start := re.match(r"(?:ENTRY )?%([\w.-]+) \(.*\{$", line):
            computation = start[1]
        match = re.search(r"= (\(.*?\)|\S+) (all-gather|all-reduce|reduce-scatter|collective-permute|all-to-all)(?:-start)?\(", line)
        if match and "/cond/" not in line:
            shapes = re.findall(r"(\w+)\[([\d,]*)\]", match[1])
            results = tuple((dtype, tuple(int(n) for n in dims.split(",") if n)) for dtype, dims in shapes)
            source = re.search(r'op_name="([^"]*)"', line)
            found.append(Collective(match[2], results, times.get(computation, 1), source[1] if source else ""))
    return found


def compile_step(made, tmp_path, **mesh):
    """A prepared run and its compiled step."""
    made.data.global_batch = BATCH
    run = tiny.prepare(made, tmp_path, devices=jax.devices(), **mesh)
    with jax.set_mesh(run.mesh):
        spec = run.spec | {"stop": jax.ShapeDtypeStruct((BATCH,), np.uint8)}
        batch = {name: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=meshes.batch_sharding(run.mesh)) for name, s in spec.items()}
        return run, programs.compile_step(run, run.abstract, batch, jax.ShapeDtypeStruct((), bool))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """(run, text, collectives) by method under pure data parallelism; each is compiled once."""
    made = {}

    def get(method):
        if method not in made:
            config = tiny.config(losses__main__options=dict(positives="mean", method=method))
            run, program = compile_step(config, tmp_path_factory.mktemp(method), data=DEVICES)
            made[method] = run, program, collectives(program.as_text())
        return made[method]

    return get


def trainable_sizes(run, freeze=()):
    """How many parameters that get a gradient have so many elements; compilers drop axes of 1, so shapes would not do."""
    return collections.Counter(math.prod(leaf.shape) for path, leaf in by_path(run.abstract.params).items() if not matches(path, freeze))


def reduced_sizes(found):
    return collections.Counter(math.prod(shape) for c in found if c.kind == "all-reduce" for _, shape in c.results)


@pytest.mark.parametrize("method", METHODS)
def test_no_device_ever_holds_the_logits_of_the_batch(method, compiled):
    _, program, found = compiled(method)
    assert found
    assert f"[{BATCH},{BATCH}]" not in program.as_text()


@pytest.mark.parametrize("method", METHODS)
def test_data_parallelism_gathers_rows_of_the_batch_and_no_parameter(method, compiled):
    _, _, found = compiled(method)
    gathered = [shape for c in found if c.kind == "all-gather" for _, shape in c.results]
    assert gathered and all(shape in ((BATCH,), (BATCH, D)) for shape in gathered)


# Beside gradients: the sum of losses and the wish to stop; vectors of a row's sums; dense: the passages' gradient.
BESIDE = {
    "dense": {1: 2, BATCH: 4, BATCH * D: 1},
    "gather": {1: 2, BATCH: 1},
    "ring": {1: 2},
}


@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_reduced_once(method, compiled):
    run, _, found = compiled(method)
    assert reduced_sizes(found) - trainable_sizes(run) == BESIDE[method]
    assert not trainable_sizes(run) - reduced_sizes(found)


@pytest.mark.parametrize("method", METHODS)
def test_embeddings_travel_as_the_formula_says(method, compiled):
    _, _, found = compiled(method)
    embedding = ((BATCH, D), (BATCH // DEVICES, D))
    sent = sum(c.sent(result) for c in found for result in c.results if result[1] in embedding)
    assert sent == plans.loss_sent(method, BATCH, D, DEVICES)


def test_arguments_take_what_the_plan_says_and_the_rest_no_more(compiled):
    run, program, _ = compiled("ring")
    found = program.memory_analysis()
    config = tiny.config(losses__main__options=dict(positives="mean", method="ring"))
    config.data.global_batch = BATCH
    plan = plans.of_run(run, config)
    stored = sum(plan.memory[kind] for kind in ("parameters", "optimizer", "averages", "batch"))
    beside = 4 + 1  # the step's number, and whether to measure
    unread = math.prod(run.spec["text_mask"].shape) // DEVICES  # a causal tower has no use for its mask, so jit drops it
    assert found.argument_size_in_bytes == stored + beside - unread
    made = plan.bytes - stored
    # XLA merges and reuses some of what autodiff keeps, and needs room in the backward pass, which shows at toy sizes; docs/scaling.md.
    assert 0.5 * made < found.temp_size_in_bytes < 1.25 * made


@pytest.fixture(scope="module")
def under_fsdp(tmp_path_factory):
    run, program = compile_step(tiny.config(), tmp_path_factory.mktemp("fsdp"), data=1, fsdp=DEVICES)
    return run, collectives(program.as_text())


def forward(found, tower):
    return [c for c in found if f"/jvp(DualEncoder)/DualEncoder.encode/towers_{tower}/" in c.source]


def test_fsdp_gathers_the_parameters_of_the_image_tower(under_fsdp):
    run, found = under_fsdp
    params = {path: leaf for path, leaf in by_path(run.abstract.params).items() if path.startswith("towers_image/")}
    split = collections.Counter(math.prod(leaf.shape) for leaf in params.values() if "fsdp" in leaf.sharding.spec)
    assert {c.kind for c in forward(found, "image")} == {"all-gather"}
    assert collections.Counter(math.prod(shape) for c in forward(found, "image") for _, shape in c.results) == split


def test_fsdp_gathers_the_parameters_of_the_text_tower(under_fsdp):
    _, found = under_fsdp
    assert {c.kind for c in forward(found, "text")} == {"all-gather"}


def sizes(leaves, axes=()):
    """How many of these parameters have so many elements on a device once they are gathered along `axes`."""
    held = lambda leaf: (
        math.prod(leaf.sharding.shard_shape(leaf.shape))
        * math.prod(leaf.sharding.mesh.shape[axis] for axis in leaf.sharding.spec if axis in axes)
    )
    return collections.Counter(held(leaf) for leaf in leaves if set(axes) & set(leaf.sharding.spec))


def gathered(found):
    return collections.Counter(math.prod(shape) for c in found if c.kind == "all-gather" for _, shape in c.results)


@pytest.fixture(scope="module")
def by_tower(tmp_path_factory):
    """A frozen image tower that is whole on every device, beside a text tower under `fsdp`."""
    made = tiny.config(optimizer__freeze=("^towers_image/",), mesh__tower_rules=dict(image=()))
    run, program = compile_step(made, tmp_path_factory.mktemp("towers"), data=1, fsdp=DEVICES)
    return run, program, collectives(program.as_text())


def test_a_whole_frozen_tower_costs_no_traffic_beside_one_under_fsdp(by_tower):
    run, _, found = by_tower
    params = by_path(run.abstract.params)
    assert all(leaf.sharding.is_fully_replicated for path, leaf in params.items() if "towers_image" in path)
    assert not [c for c in found if "towers_image" in c.source]
    split = sizes([leaf for path, leaf in params.items() if "towers_text" in path], ("fsdp",))
    rows = {BATCH: 100, BATCH * D: 100}  # the batch's own: ids, embeddings
    assert split and not split - gathered(found) and not gathered(found) - split - split - collections.Counter(rows)
    learned = trainable_sizes(run, ("^towers_image/",))
    assert not learned - reduced_sizes(found) and set(reduced_sizes(found) - learned) == set(BESIDE["dense"])


def test_the_optimizer_of_a_split_tower_is_split_and_a_frozen_one_has_none(by_tower):
    run, program, _ = by_tower
    trainable = {path: leaf for path, leaf in by_path(run.abstract.params).items() if "towers_image" not in path}
    moments = [leaf for leaf in jax.tree.leaves(run.abstract.opt_state) if leaf.ndim]
    stored = lambda leaves: sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in leaves)
    assert stored(moments) == 2 * stored(leaf for leaf in trainable.values() if leaf.ndim)
    assert stored(moments) < 2 * sum(math.prod(leaf.shape) for leaf in trainable.values()) / 4


@pytest.fixture(scope="module")
def cube(tmp_path_factory):
    run, program = compile_step(tiny.config(), tmp_path_factory.mktemp("cube"), data=2, fsdp=2, tensor=2)
    return run, program, collectives(program.as_text())


def test_under_tensor_sharding_a_matrix_is_gathered_along_fsdp_at_most(cube):
    """What is split over `tensor` stays so, but for the table of tokens, which the text tower takes whole."""
    run, _, found = cube
    params = {path: leaf for path, leaf in by_path(run.abstract.params).items() if "towers" in path}
    both = {path: math.prod(leaf.shape) for path, leaf in params.items() if {"fsdp", "tensor"} <= set(leaf.sharding.spec)}
    table = both.pop("towers_text/token_embedding")
    elsewhere = set(sizes(params.values(), ("fsdp",)))  # sizes that other parameters have, gathered along fsdp
    whole = set(both.values()) - elsewhere
    assert whole and not whole & set(gathered(found)) and gathered(found)[table] == 1


def test_under_tensor_sharding_no_logits_and_no_hidden_states_are_gathered(cube):
    _, program, found = cube
    # A tower may have products of this size, over the rows and patches of a device.
    assert not [
        line for line in program.as_text().splitlines() if f"[{BATCH},{BATCH}]" in line and "op_name" in line and "/towers_" not in line
    ]
    rows = [shape for c in found if c.kind == "all-gather" for _, shape in c.results if shape[0] == BATCH]
    assert rows and set(rows) == {(BATCH,), (BATCH, D)}


def test_adapters_send_the_gradients_of_their_matrices(tmp_path):
    """Merged in parameter space, a factor's gradient comes through that of its whole matrix, which is what devices add up."""
    entry = dict(name="lora", patterns=("mlp/", "qkv_kernel/[qv]$"), options=dict(rank=2))
    made = tiny.config(model__adapters=dict(text=entry, image=entry))
    run, program = compile_step(made, tmp_path, data=DEVICES)
    params = by_path(run.abstract.params)
    adapted = collections.Counter(math.prod(params[path].shape) for path in run.adapters.targets)
    found = collectives(program.as_text())
    assert reduced_sizes(found) - adapted - collections.Counter({1: 1}) == BESIDE["dense"]  # 1: the logit scale
    assert not adapted - reduced_sizes(found)
    sent = sum(c.sent(result) for c in found if c.kind == "all-reduce" for result in c.results if math.prod(result[1]) in adapted)
    assert plans.of_run(run, made).sent["gradients"] == sent + 7
