"""What every benchmark shares: the machine it runs on, the time of a call, and where its result goes."""

import datetime
import json
import os
import pathlib
import platform
import resource
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

RESULTS = pathlib.Path(__file__).parent / "results"


def seconds(call: Callable, *arguments) -> tuple[float, float]:
    """Wall and processor seconds of one call, until its arrays are there."""
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    jax.block_until_ready(call(*arguments))
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def alternate(calls: dict[str, Callable], rounds: int) -> dict[str, dict[str, float]]:
    """Best wall and processor seconds of each call over a few rounds in which they take turns.

    On a machine that others use, processor seconds say what the wall does not.
    """
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call))
    return {
        name: dict(zip(("seconds", "processor_seconds"), map(min, zip(*found, strict=True)), strict=True)) for name, found in times.items()
    }


def machine() -> dict[str, Any]:
    """What the numbers depend on: processor, cores, their rate on a float32 matmul now, JAX, date."""
    model = [line.split(":")[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    square = jnp.ones((2048, 2048))
    program = jax.jit(jnp.matmul).lower(square, square).compile()
    rate = 2 * 2048**3 / min(seconds(program, square, square)[0] for _ in range(6)) / 1e9
    return {
        "processor": model[0] if model else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "matmul_gflop_per_second": round(rate),
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "date": datetime.date.today().isoformat(),
    }


def save(name: str, result: dict[str, Any]) -> None:
    """Prints a result as the last line and keeps it in `benchmarks/results/<name>.json`."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
