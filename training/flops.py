"""Forward matmul FLOPs counted from a traced program, and the published peaks they are compared with."""

import math

import jax

# Published dense bfloat16 peak per device, FLOP/s. A device that is not listed gets no MFU rather than a guess.
PEAKS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}


def matmul_flops(function, *args) -> int:
    """Multiply-adds, times two, of every matrix product and convolution in `function(*args)`; a scan's body counts each time it runs."""
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "dot_general":
            (contract, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contract)
        elif name == "conv_general_dilated":
            kernel, spec = equation.invars[1].aval.shape, equation.params["dimension_numbers"].rhs_spec
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) // kernel[spec[0]]
        inner = [_count(_open(p)) for p in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr) if _is_jaxpr(p)]
        total += equation.params.get("length", 1) * sum(inner) if name == "scan" else sum(inner)
    return total


def _is_jaxpr(value) -> bool:
    return hasattr(_open(value), "eqns")


def _open(value):
    return getattr(value, "jaxpr", value)


def mfu(forward_flops: int, seconds: float, devices) -> float | None:
    """3 x forward matmul FLOPs of the global steps done in that time / (seconds x the devices' peak); None where a peak is unknown.

    Full attention and padding are counted, rematerialisation and the loss's recomputation are not.
    """
    peaks = [PEAKS.get(device.device_kind) for device in devices]
    return None if None in peaks else 3 * forward_flops / (seconds * sum(peaks))
