"""Matrix products with rounded operands, in a function that knows nothing of it.

Towers compute in float32 unless told otherwise. A processor with bfloat16 instructions multiplies rounded operands twice as fast, if
the sums stay float32: XLA for CPUs has a fast path for bfloat16 -> float32, and a slow one for bfloat16 -> bfloat16, which is what a
tower of that dtype asks for. So everything but the operands is left in float32, which costs less accuracy too.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

CALLS = (
    "jit",
    "pjit",
    "closed_call",
    "custom_jvp_call",
    "custom_vjp_call",
    "checkpoint",
    "remat2",
)  # primitives that hold a body to go into


def rounded(function: Callable, dtype: str) -> Callable:
    """`function` of arrays, with the float32 operands of its products by a matrix rounded to `dtype` and their sums kept in float32.

    Products of two batches (attention) stay as they are: they are small, and their rounding costs more than it saves. So do products
    inside a loop, as in a tower with `scan`.
    """

    def run(*arguments):
        leaves, _ = jax.tree.flatten(arguments)
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*arguments)
        return jax.tree.unflatten(jax.tree.structure(shape), _evaluate(closed.jaxpr, closed.consts, leaves, dtype))

    return run


def _evaluate(jaxpr, consts: Sequence, arguments: Sequence, dtype: str) -> list:
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))
    read = lambda atom: atom.val if isinstance(atom, Literal) else values[atom]
    for equation in jaxpr.eqns:
        made = _apply(equation, [read(atom) for atom in equation.invars], dtype)
        values |= dict(zip(equation.outvars, made, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _apply(equation, arguments: Sequence, dtype: str) -> list:
    name, params = equation.primitive.name, equation.params
    if name in CALLS:
        body = params["jaxpr"] if "jaxpr" in params else params["call_jaxpr"]
        inner, consts = (body.jaxpr, body.consts) if hasattr(body, "consts") else (body, ())
        return _evaluate(inner, consts, arguments, dtype)
    if name == "dot_general" and not params["dimension_numbers"][1][0] and all(a.dtype == jnp.float32 for a in arguments):
        arguments, params = [a.astype(dtype) for a in arguments], params | {"preferred_element_type": jnp.dtype("float32")}
    made = equation.primitive.bind(*arguments, **params)
    return made if equation.primitive.multiple_results else [made]
