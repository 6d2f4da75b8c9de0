"""Sets of compiler flags that others found worth trying, by name: `TANDEM_PRESET=gpu-overlap`, or several with commas.

A flag that XLA_FLAGS or LIBTPU_INIT_ARGS names already keeps the user's value. None of these is on by default, and none was measured
with Tandem: set one, compare `perf/examples_per_second` of `metrics.jsonl`, keep it if it helps. XLA ends a process that names a flag it
does not have, so every flag here is one of the pinned jaxlib (tried) or of libtpu 0.0.42 (its name is in the library).

Sources: JAX's "GPU performance tips" and NVIDIA's JAX-Toolbox for gpu-*; the flag lists of MaxText for tpu-*.
"""

from collections.abc import Mapping

from core.config import choose

VARIABLE = "TANDEM_PRESET"

PRESETS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    # Moves collectives away from what waits for them, over the borders of scanned layers too: several GPUs, mesh.fsdp above 1 most of all.
    "gpu-overlap": (
        "XLA_FLAGS",
        (
            "--xla_gpu_enable_latency_hiding_scheduler=true",
            "--xla_gpu_enable_pipelined_all_gather=true",
            "--xla_gpu_enable_pipelined_reduce_scatter=true",
            "--xla_gpu_enable_pipelined_all_reduce=true",
        ),
    ),
    # Matrix products by Triton kernels wherever those can do them, not only where the compiler expects a gain.
    "gpu-triton": ("XLA_FLAGS", ("--xla_gpu_triton_gemm_any=true",)),
    # Collectives inside a slice run in pieces next to the matrix products: mesh.fsdp above 1.
    "tpu-overlap": (
        "LIBTPU_INIT_ARGS",
        (
            "--xla_tpu_enable_async_collective_fusion=true",
            "--xla_tpu_enable_async_collective_fusion_fuse_all_gather=true",
            "--xla_tpu_enable_async_collective_fusion_multiple_steps=true",
            "--xla_tpu_overlap_compute_collective_tc=true",
            "--xla_enable_async_all_gather=true",
        ),
    ),
    # Sums of gradients over the network between slices, in groups of several sizes and next to other work: mesh.data over slices.
    "tpu-slices": (
        "LIBTPU_INIT_ARGS",
        ("--xla_tpu_enable_data_parallel_all_reduce_opt=true", "--xla_tpu_data_parallel_opt_different_sized_ops=true"),
    ),
    # Several processes on a crowded machine: collectives wait longer for one that gets no core before XLA ends the process.
    "cpu-crowded": (
        "XLA_FLAGS",
        ("--xla_cpu_collective_call_warn_stuck_timeout_seconds=300", "--xla_cpu_collective_call_terminate_timeout_seconds=900"),
    ),
}


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that the presets of TANDEM_PRESET change; set them before JAX starts.

    Raises:
        ConfigError: no such preset; lists them.
    """
    found: dict[str, str] = {}
    for name in filter(None, (part.strip() for part in environment.get(VARIABLE, "").split(","))):
        variable, flags = choose(PRESETS, name, VARIABLE)
        words = (dict(environment) | found).get(variable, "").split()
        named = {word.partition("=")[0] for word in words}
        found[variable] = " ".join([*words, *(flag for flag in flags if flag.partition("=")[0] not in named)])
    return found
