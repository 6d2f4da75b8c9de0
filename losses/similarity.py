"""Cosines between rows, in the dtype the config asks for; leaves masks and losses to the files beside it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

MATMUL_DTYPES = ("bfloat16", "float16", "float32")


def operand_dtype(dtype: jnp.dtype, matmul_dtype: str) -> jnp.dtype:
    """The dtype in which a similarity matmul takes its operands.

    Args:
        dtype: of the embeddings; float64 stays float64, whatever the config says.
        matmul_dtype: `config.losses.matmul_dtype`.

    Raises:
        ValueError: a dtype that is not offered.
    """
    if matmul_dtype not in MATMUL_DTYPES:
        raise ValueError(f"matmul_dtype is {matmul_dtype!r}; set config.losses.matmul_dtype to one of: {', '.join(MATMUL_DTYPES)}.")
    return jnp.dtype(dtype) if dtype == jnp.float64 else jnp.dtype(matmul_dtype)


def einsum(formula: str, a: Array, b: Array, matmul_dtype: str) -> Array:
    """A product of two arrays: operands in `matmul_dtype`, sums in float32 or wider."""
    dtype = operand_dtype(jnp.promote_types(a.dtype, b.dtype), matmul_dtype)
    # bfloat16 spaces cosines near 1 by 1/256: times a logit scale of 50, a fifth of a nat. So the sums are float32, and where
    # float32 operands are asked for, "highest" keeps TPUs from rounding them to bfloat16 and GPUs to tf32.
    return jnp.einsum(
        formula,
        a.astype(dtype),
        b.astype(dtype),
        precision=jax.lax.Precision.HIGHEST if dtype.itemsize >= 4 else None,
        preferred_element_type=jnp.promote_types(dtype, jnp.float32),
    )


def cosines(zq: Float[Array, "B d"], zp: Float[Array, "N d"], matmul_dtype: str) -> Float[Array, "B N"]:
    """Cosine of every query with every passage, both of unit length."""
    return einsum("qd,pd->qp", zq, zp, matmul_dtype)
