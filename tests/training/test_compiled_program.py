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


def test_gradients_of_a_frozen_tower_are_not_reduced(tmp_path):
    freeze = ("^towers_image/",)
    run, program = compile_step(tiny.config(optimizer__freeze=freeze), tmp_path, data=DEVICES)
    found = collectives(program.as_text())
    assert reduced_sizes(found) - trainable_sizes(run, freeze) == BESIDE["dense"]
    assert not trainable_sizes(run, freeze) - reduced_sizes(found)
    assert not any("towers_image" in c.source for c in found)


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
    # Autodiff keeps more than XLA, which merges, recomputes and reuses; see docs/scaling.md.
    assert 0.5 * made < found.temp_size_in_bytes < made


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
