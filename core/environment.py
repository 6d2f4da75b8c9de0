"""Facts about the machine and the code that a result stands on."""

import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys
import time

import jax
import jax.numpy as jnp

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "tokenizers", "pillow")


def commit() -> str | None:
    """The checkout's commit, with `+` where files differ from it; outside a checkout what TANDEM_COMMIT says, or None."""
    root = pathlib.Path(__file__).resolve().parents[1]
    run = lambda *words: subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True)
    try:
        head = run("rev-parse", "--short=12", "HEAD")
        if head.returncode == 0:
            return head.stdout.strip() + ("+" if run("status", "--porcelain", "-uno").stdout.strip() else "")
    except FileNotFoundError:  # no git on this machine
        pass
    return os.environ.get("TANDEM_COMMIT")  # code that was shipped without its history


def matmul_gflops(size: int = 2048, repeats: int = 5) -> float:
    """Rate of a square float32 matrix product on the default device, GFLOP/s: what a step can hope for here."""
    a = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda x: x @ x)
    product(a).block_until_ready()
    start = time.perf_counter()
    for _ in range(repeats):
        product(a).block_until_ready()
    return 2 * size**3 * repeats / (time.perf_counter() - start) / 1e9


def describe() -> dict:
    """Versions, devices, cores, commit and command."""
    device = jax.devices()[0]
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": _command(),
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "devices": f"{jax.device_count()} x {device.device_kind}",
        "processes": jax.process_count(),
    }


def _command() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)  # of `python -m`; a notebook's process has none
    return " ".join(["python", *(["-m", spec.name] if spec else sys.argv[:1]), *sys.argv[1:]])


def _cpu() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
