"""What a ring sends while it computes: transfers and tiles of one hop wait for each other in neither direction."""

import jax
import jax.numpy as jnp
import pytest
from jax.extend import core

from losses.infonce import infonce
from losses.sigmoid import sigmoid
from tests.losses import drawn
from tests.losses.test_blockwise import mesh_of
from tests.losses.test_contracts import on, value_and_gradients


def inner(equation):
    """The programs inside an equation."""
    for value in equation.params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, core.Jaxpr | core.ClosedJaxpr):
                yield getattr(part, "jaxpr", part)


def holds(equation, name):
    return equation.primitive.name == name or any(holds(e, name) for program in inner(equation) for e in program.eqns)


def programs(program):
    """A program and all inside it."""
    yield program
    for equation in program.eqns:
        for part in inner(equation):
            yield from programs(part)


def hops(program):
    """The loop bodies in which devices pass something on."""
    loops = [e for part in programs(program) for e in part.eqns if e.primitive.name in ("scan", "while")]
    bodies = [part for loop in loops for part in inner(loop)]
    return [b for b in bodies if any(e.primitive.name == "ppermute" for e in b.eqns) and any(holds(e, "dot_general") for e in b.eqns)]


def waiting(body, source, target):
    """Equations holding `target` that need, directly or not, what one holding `source` has made."""
    tainted, found = set(), []
    for equation in body.eqns:
        needs = any(not isinstance(v, core.Literal) and v in tainted for v in equation.invars)
        if needs and holds(equation, target):
            found.append(equation)
        if needs or holds(equation, source):
            tainted.update(equation.outvars)
    return found


@pytest.mark.parametrize("loss", [infonce, sigmoid], ids=lambda loss: loss.__name__)
def test_transfers_and_tiles_of_a_hop_may_overlap(loss):
    """Neither needs the other's results, forward or backward, so a compiler that hides latency is free to run both at once."""
    arrays = drawn.inputs(loss, drawn.batch(queries=8), without=("zn", "zp_weight"))
    mesh = mesh_of(4)
    with jax.set_mesh(mesh):
        traced = jax.make_jaxpr(lambda a: value_and_gradients(loss, a, method="ring", block_size=2))(on(mesh, arrays))
    bodies = hops(traced.jaxpr)
    assert len(bodies) == 2  # forward and backward
    for body in bodies:
        assert not waiting(body, "dot_general", "ppermute")
        assert not waiting(body, "ppermute", "dot_general")


def test_what_waits_is_found():
    """The check above, on a hop that sends what it has just computed, and on one that computes on what has just arrived."""

    def program(step):
        body = jax.shard_map(lambda x: jax.lax.fori_loop(0, 3, lambda _, y: step(y), x), in_specs=spec, out_specs=spec)
        return hops(jax.make_jaxpr(body)(jnp.ones((8, 2, 2))).jaxpr)

    spec, ring = jax.sharding.PartitionSpec("data"), [(i, (i + 1) % 2) for i in range(2)]
    with jax.set_mesh(mesh_of(2)):
        (sends,) = program(lambda y: jax.lax.ppermute(y @ y, "data", ring))
        (receives,) = program(lambda y: (lambda z: z @ z)(jax.lax.ppermute(y, "data", ring)))
    assert waiting(sends, "dot_general", "ppermute") and not waiting(sends, "ppermute", "dot_general")
    assert waiting(receives, "ppermute", "dot_general") and not waiting(receives, "dot_general", "ppermute")
