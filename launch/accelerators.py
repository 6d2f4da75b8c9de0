"""The accelerators of this machine, dealt out so that none belongs to two processes; asks the system, and starts no JAX."""

import os
import pathlib
from collections.abc import Mapping, Sequence

from core.config import ConfigError


def gpus() -> list[str]:
    """Names of the NVIDIA GPUs that processes started here may use: those of CUDA_VISIBLE_DEVICES, else all; none where JAX is kept
    to the CPU."""
    count = len(list(pathlib.Path("/dev").glob("nvidia[0-9]*")))
    return [] if os.environ.get("JAX_PLATFORMS") == "cpu" else visible(count)


def visible(count: int) -> list[str]:
    """Which of so many GPUs CUDA_VISIBLE_DEVICES leaves."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None or not count:
        return [str(i) for i in range(count)]
    return [name.strip() for name in named.split(",") if name.strip()]


def tpu_chips() -> int:
    """TPU chips of this machine; 0 where JAX is kept to the CPU."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return 0
    return sum(len(list(pathlib.Path("/dev").glob(name))) for name in ("accel[0-9]*", "vfio/[0-9]*"))  # by generation of the chips


def shares(count: int, flag: str, gpus: Sequence[str], chips: int) -> list[Mapping[str, str]]:
    """Variables for each of `count` processes at a time.

    Args:
        count: processes.
        flag: what asked for them, for example `--parallel`.
        gpus: names of the GPUs; where they do not divide, some are left over.
        chips: TPU chips, which one process takes all.

    Raises:
        ConfigError: more processes than GPUs, or several on TPU chips.
    """
    if not gpus and (count == 1 or not chips):
        return [{}] * count
    if count > (len(gpus) or 1):
        there = f"{len(gpus)} GPUs" if gpus else f"the {chips} TPU chips of this machine"
        raise ConfigError(f"{flag}={count}, but processes do not share {there}; set it to {len(gpus) or 1}, or JAX_PLATFORMS=cpu.")
    share = len(gpus) // count
    return [{"CUDA_VISIBLE_DEVICES": ",".join(gpus[i * share : (i + 1) * share])} for i in range(count)]
