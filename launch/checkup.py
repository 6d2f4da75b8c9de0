"""What `launch.doctor` looks at: each function gives findings, and none of them touches a run."""

import contextlib
import importlib.metadata
import os
import pathlib
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from core.config import ConfigError
from core.storage import as_path, is_remote
from launch import process

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROBE_BYTES = 64 << 20  # written to the workdir and read back
OK, NOTE, WRONG = "ok", "note", "WRONG"
_COLOURS = {OK: "32", NOTE: "33", WRONG: "31"}


class Line(NamedTuple):
    """One finding; `cure` says what to do where `state` is not ok."""

    name: str
    found: str
    state: str = OK
    cure: str = ""


def examine(config, workdir: str | None, *, take_step: bool) -> Iterator[Line]:
    """All findings; one that cannot be made is itself a finding."""
    yield from tried("python", python)
    yield from tried("versions", lambda: versions((ROOT / "requirements.txt").read_text()))
    yield from tried("memory", lambda: memory(pathlib.Path("/proc/meminfo").read_text()))
    yield from tried("devices", devices)
    yield from tried("collective", collective)
    needed = 0
    if config is not None:
        found = list(tried("mesh", lambda: mesh(config)))
        yield from found
        if take_step and all(line.state != WRONG for line in found):
            measured: dict[str, int] = {}
            yield from tried("first step", lambda: first_step(config, measured))
            needed = measured.get("bytes", 0) * (config.checkpoint.keep_last + 1)
    if workdir is not None:
        where = store if is_remote(workdir) else disk
        yield from tried("workdir", lambda: where(as_path(workdir), needed))
        if config is not None:
            yield from tried("earlier run", lambda: earlier(as_path(workdir), config))


def tried(name: str, look: Callable[[], Iterator[Line]]) -> Iterator[Line]:
    """What `look` finds, and as a WRONG line what it raises."""
    try:
        yield from look()
    except Exception as error:
        text = " ".join(str(error).split())[:500]
        known = isinstance(error, ConfigError)  # says itself what to do
        yield Line(name, text if known else f"{type(error).__name__}: {text}", WRONG, "" if known else process.disk_trouble(error) or "")


def python() -> Iterator[Line]:
    version = platform.python_version()
    fine = sys.version_info >= (3, 11)
    yield Line(
        "python", f"{version}, {platform.system()} {platform.machine()}", OK if fine else WRONG, "" if fine else "install 3.11 or 3.12"
    )


def versions(requirements: str) -> Iterator[Line]:
    """Installed packages beside the exact pins."""
    from core import environment

    pins, wrong = dict(re.findall(r"^([\w.-]+)==([\w.]+)", requirements, re.M)), []
    for name, pin in pins.items():
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            installed = "missing"
        if installed != pin:
            wrong.append(f"{name} {installed} (pinned {pin})")
    cure = "pip install -r requirements.txt" if wrong else ""
    # Another version may well work; without the package nothing does.
    state = WRONG if any(" missing " in text for text in wrong) else NOTE if wrong else OK
    yield Line("versions", "; ".join(wrong) or f"{len(pins)} packages as pinned, jax {pins['jax']}", state, cure)
    commit = environment.commit()
    changed = commit is not None and commit.endswith("+")
    yield Line(
        "commit",
        commit or "no git checkout",
        NOTE if changed else OK,
        "files differ from the commit; results will say so" if changed else "",
    )


def memory(meminfo: str) -> Iterator[Line]:
    """Of the host, from the text of /proc/meminfo."""
    kilobytes = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB", meminfo, re.M)}
    free, total = kilobytes["MemAvailable"] * 1024, kilobytes["MemTotal"] * 1024
    low = free < 2e9
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = os.getloadavg()[0]
    yield Line(
        "memory", f"{size(free)} of {size(total)} free", WRONG if low else OK, "end other programs, or take a larger machine" if low else ""
    )
    busy = load > 1.5 * cores
    yield Line("cores", f"{cores}, load {load:.1f}", NOTE if busy else OK, "others use them: expect slower steps" if busy else "")


def devices() -> Iterator[Line]:
    import jax

    from core import environment

    local = jax.local_devices()
    kinds = f"{jax.device_count()} x {local[0].device_kind} ({jax.default_backend()}), processes: {jax.process_count()}"
    unused = _unused_accelerator() if jax.default_backend() == "cpu" else None
    yield Line("devices", kinds, WRONG if unused else OK, unused or "")
    stats = [device.memory_stats() or {} for device in local]
    if all("bytes_limit" in found for found in stats):
        free = min(found["bytes_limit"] - found["bytes_in_use"] for found in stats)
        yield Line("device memory", f"{size(free)} free of {size(min(found['bytes_limit'] for found in stats))} on each")
    yield Line("matmul", f"{environment.matmul_gflops():.0f} GFLOP/s in float32")


def _unused_accelerator() -> str | None:
    """What to install where an accelerator is there but JAX does not see it."""
    for pattern, what, file in (("nvidia[0-9]*", "NVIDIA GPU", "requirements-gpu.txt"), ("accel[0-9]*", "TPU", "requirements-tpu.txt")):
        if any(pathlib.Path("/dev").glob(pattern)) and os.environ.get("JAX_PLATFORMS") != "cpu":
            return f"a {what} is here, but JAX does not see it: pip install -r {file}"
    return None


def collective() -> Iterator[Line]:
    """A sum over all devices of all processes, with a known result."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec

    from core import mesh as meshes

    count = jax.device_count()
    sharding = NamedSharding(meshes.make(), PartitionSpec(meshes.AXES))
    numbers = jax.make_array_from_callback((count,), sharding, lambda index: np.arange(1, count + 1, dtype=np.float32)[index])
    begin = time.perf_counter()
    found = float(jax.jit(jnp.sum, out_shardings=meshes.replicated(sharding.mesh))(numbers))
    wanted, seconds = count * (count + 1) / 2, time.perf_counter() - begin
    state = OK if found == wanted else WRONG
    cure = "" if state == OK else "the interconnect or its driver is broken: run the vendor's own test"
    yield Line("collective", f"sum over all {count} is {found:g}, {wanted:g} expected ({seconds:.2f} s)", state, cure)


def mesh(config) -> Iterator[Line]:
    """The mesh that the config would get here, and what a device holds of a batch."""
    from core import mesh as meshes
    from evals import job

    job.check(config)
    made = meshes.make(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    meshes.check_batch(config.data.global_batch, made)
    rows = config.data.global_batch // meshes.shards(made)
    yield Line("mesh", ", ".join(f"{axis}={n}" for axis, n in made.shape.items()) + f"; {rows} of {config.data.global_batch} rows on each")


def first_step(config, measured: dict[str, int]) -> Iterator[Line]:
    """Takes two steps; leaves the bytes of a checkpoint in `measured`."""
    import jax
    import numpy as np

    import interop
    from core import mesh as meshes
    from training import loop, programs
    from training import plan as plans
    from training import run as runs
    from training.data import HOST_ONLY, open_data

    times = [time.perf_counter()]
    lap = lambda: times.append(time.perf_counter()) or times[-1] - times[-2]
    config = interop.resolve(config)
    with tempfile.TemporaryDirectory() as folder:
        data = open_data(config, pathlib.Path(folder))
        opened = lap()
        run = runs.prepare(config, data, meshes.make(config.mesh.data, config.mesh.fsdp, config.mesh.tensor))
        measured["bytes"] = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(run.abstract.items()))
        yield from fits(plans.of_run(run, config), plans)
        lap()
        with jax.set_mesh(run.mesh), contextlib.closing(run.data.iterate(0, None, run.mesh)) as batches:
            state, update = loop.fresh(run), programs.Programs(run)
            prepared = lap()
            seconds, losses = [], []
            for _ in range(2):
                batch = next(batches)
                rows = {"stop": np.zeros(len(batch["record"]), np.uint8)}
                arrays = {name: array for name, array in batch.items() if name not in HOST_ONLY} | rows
                state, metrics = update(state, meshes.place_batch(arrays, run.mesh), np.bool_(True))
                losses.append(float(metrics["train/loss"]))
                seconds.append(lap())
    first = times[-2] - times[0]
    parts = f"data {opened:.1f} s, state {prepared:.1f} s, compile and step {seconds[0]:.1f} s"
    yield Line("first step", f"after {first:.1f} s ({parts}); the second took {seconds[1]:.2f} s")
    fine = all(np.isfinite(losses))
    yield Line(
        "loss", f"{losses[0]:.3f}, then {losses[1]:.3f}", OK if fine else WRONG, "" if fine else "lower config.optimizer.learning_rate"
    )


def fits(plan, plans) -> Iterator[Line]:
    """Whether the planned bytes are there, on the fullest device or, on CPUs, in the host's memory."""
    import jax

    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    if all("bytes_limit" in found for found in stats):
        limit, where = min(found["bytes_limit"] for found in stats), jax.local_devices()[0].device_kind
    else:
        meminfo = pathlib.Path("/proc/meminfo").read_text()
        limit = int(re.search(r"MemAvailable:\s+(\d+)", meminfo)[1]) * 1024 / jax.local_device_count()
        where = "this host"
    reason = plans.refusal(plan, limit, where)
    yield Line("memory of a step", f"{size(plan.bytes)} planned, {size(limit)} there on each device", WRONG if reason else OK, reason or "")


def disk(workdir: pathlib.Path, needed: int) -> Iterator[Line]:
    """Whether the folder is free, can be written, how fast, and whether the checkpoints will fit.

    Args:
        workdir: there or not yet; what is made is deleted.
        needed: bytes of the checkpoints that lie there at once; 0 where unknown.
    """
    from core.workdir import locked

    new = not workdir.exists()
    try:
        with locked(workdir):
            write, read = speed(workdir)
            free = shutil.disk_usage(workdir).free
    finally:
        if new and workdir.is_dir():
            (workdir / "lock").unlink(missing_ok=True)
            workdir.rmdir()
    yield Line("workdir", _free(workdir, new))
    yield _speed("disk speed", write, read)
    least = max(needed, 1e9)
    text = f"{size(free)} free" + (f", checkpoints take up to {size(needed)}" if needed else "")
    cure = "free some space, or lower config.checkpoint.keep_last" if free < least else ""
    yield Line("disk space", text, WRONG if free < least else OK, cure)


def store(workdir, needed: int) -> Iterator[Line]:
    """Whether a folder on an object store is free, can be written, and how fast; what is made is deleted."""
    from core.workdir import locked

    new, probe, content = not workdir.exists(), workdir / "probe", os.urandom(PROBE_BYTES)
    with locked(workdir):
        try:
            begin = time.perf_counter()
            probe.write_bytes(content)
            written = time.perf_counter() - begin
            begin = time.perf_counter()
            whole = probe.read_bytes() == content
            read = time.perf_counter() - begin
        finally:
            probe.unlink(missing_ok=True)
    yield Line("workdir", _free(workdir, new))
    yield Line("store", "gives back what was written" if whole else "gives back other bytes", OK if whole else WRONG)
    yield _speed("store speed", PROBE_BYTES / written, PROBE_BYTES / read)
    yield Line("store space", f"checkpoints take up to {size(needed)}" if needed else "without --config unknown")


def _free(workdir, new: bool) -> str:
    return f"{workdir}: {'would be made' if new else 'there, and nobody trains in it'}"


def _speed(name: str, write: float, read: float) -> Line:
    slow = min(write, read) < 20e6
    cure = "put the workdir on a local disk, or raise config.checkpoint.every_steps" if slow else ""
    return Line(name, f"{size(write)}/s written, {size(read)}/s read", NOTE if slow else OK, cure)


def earlier(workdir: pathlib.Path, config) -> Iterator[Line]:
    """Whether the config is the one that made the folder."""
    import interop
    from core.checkpoint import committed_steps
    from core.workdir import check_config

    check_config(workdir, interop.resolve(config))
    steps = committed_steps(workdir / "checkpoints")
    if steps:
        yield Line("earlier run", f"would go on from step {steps[-1]}")


def speed(folder: pathlib.Path) -> tuple[float, float]:
    """Bytes a second written to the disk and read back from it, past the cache where the system allows."""
    chunk = os.urandom(4 << 20)
    with tempfile.TemporaryFile(dir=folder) as file:
        begin = time.perf_counter()
        for _ in range(PROBE_BYTES // len(chunk)):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
        written = time.perf_counter() - begin
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        begin = time.perf_counter()
        while file.read(len(chunk)):
            pass
        return PROBE_BYTES / written, PROBE_BYTES / max(time.perf_counter() - begin, 1e-9)


def size(value: float) -> str:
    """Bytes with a decimal unit."""
    unit, factor = next(((u, f) for u, f in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)) if value >= f), ("kB", 1e3))
    return f"{value / factor:.1f} {unit}"


def page(lines: list[Line], *, colour: bool) -> str:
    """The findings for readers, with what to do below each that is not ok, and a verdict."""
    paint = lambda state, text: f"\033[{_COLOURS[state]}m{text}\033[0m" if colour else text
    rows = []
    for line in lines:
        text = f"{line.name:<17}{line.found}"
        rows.append(f"{paint(OK, OK)}    {text}" if line.state == OK else paint(line.state, f"{line.state:<6}{text}"))
        if line.cure:
            rows.append(paint(line.state, f"{'':<23}-> {line.cure}"))
    wrong = sum(line.state == WRONG for line in lines)
    verdict = f"{wrong} wrong: a run would not work here as it is" if wrong else "nothing stands in the way of a run"
    return "\n".join([*rows, "", paint(WRONG if wrong else OK, verdict)])
