"""Sets a process up: logging, the compilation cache, one or many hosts, and how mistakes end it.

Call these inside `main`: input workers import the launching module again, and must not start a second JAX.
"""

import contextlib
import errno
import faulthandler
import logging
import os
import pathlib
import sys
import tempfile
import time

from absl import flags

from core import workdir
from core.config import ConfigError
from core.watchdog import LOST_PEER
from launch import arrival, joining, overrides, peers, presets

DONE, CONFIG_ERROR, BAD_LOSS, STOPPED = workdir.DONE, 3, workdir.BAD_LOSS, workdir.STOPPED
COORDINATOR, ALONE = joining.COORDINATOR, joining.ALONE
_FULL = {errno.ENOSPC: "free some space there", errno.EDQUOT: "raise the quota there", errno.EROFS: "mount it for writing"}
_REFUSED = {number: "you cannot write there" for number in (errno.EACCES, errno.EPERM)}
_REFUSED |= {number: "a part of the path is a file" for number in (errno.ENOTDIR, errno.EEXIST)}

log = logging.getLogger("tandem")


def start(nice: int = 0, *, several: bool = False) -> peers.Aborts | None:
    """Prepares this process; a no-op beyond logging and the cache on one host.

    Args:
        nice: how much to lower the priority.
        several: whether this command may be one of several processes of a run, as `launch/joining.py` finds out.

    Returns:
        With several processes, what `peers.leaving` needs to end this one; None alone.
    """
    with exit_codes():
        os.environ.update(presets.variables(os.environ))
    import jax

    faulthandler.enable()
    _quiet()
    os.environ.setdefault("EPATH_USE_TF", "false")  # object stores through gcsfs, also where TensorFlow happens to be installed
    if nice:
        os.nice(nice)
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR") or pathlib.Path(tempfile.gettempdir()) / f"tandem-cache-{os.getuid()}"
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    if several:
        _join()
    if jax.process_count() > 1 and jax.default_backend() == "cpu":
        # With jaxlib 0.10 a step with split parameters that several CPU processes load from the cache trains something else, and
        # something else every time; compiled anew by each it is right.
        jax.config.update("jax_enable_compilation_cache", False)
    log_to_stderr(_prefix(jax.process_index(), jax.process_count()), jax.process_index() == 0)
    return peers.Aborts() if jax.process_count() > 1 else None


def _join() -> None:
    """Makes this process one of several; ends it with a line where the others do not come."""
    import jax

    with exit_codes():
        try:
            seat = joining.find(os.environ)
            if seat is None:
                return
            log_to_stderr(_prefix(seat.index, seat.count), seat.index == 0)
            waiting = float(os.environ.get("TANDEM_ARRIVAL_SECONDS", arrival.ARRIVAL_SECONDS))
            arrival.meet(seat.coordinator, seat.count, seat.index, waiting)
        except arrival.Absent as error:
            log.error("%s", error)
            sys.exit(LOST_PEER)
    parting = int(os.environ.get("TANDEM_PARTING_SECONDS", peers.PARTING_SECONDS))
    # Everything is known by now; asked again, JAX would take one GPU by the index of the task, whichever the task sees.
    jax.distributed.initialize(
        seat.coordinator, seat.count, seat.index, local_device_ids=seat.devices, cluster_detection_method="deactivate",
        shutdown_timeout_seconds=parting,
    )  # fmt: skip


def _prefix(index: int, count: int) -> str:
    return f"[{index}] " if count > 1 else ""


def log_to_stderr(prefix: str = "", verbose: bool = True) -> None:
    """Lines on stderr with the time; errors alone unless `verbose`."""
    logging.basicConfig(
        stream=sys.stderr,
        force=True,
        level=logging.INFO if verbose else logging.ERROR,
        format=f"{prefix}%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
    )
    _quiet()


def _quiet() -> None:
    for name in ("absl", "jax", "orbax", "grain", "gcsfs", "fsspec", "matplotlib", "fontTools", "PIL"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextlib.contextmanager
def exit_codes():
    """Ends the process on a user's mistake with one line and code 3, whatever raised it; other errors keep their traceback.

    A disk that is full or cannot be written to is such a mistake: another path, or some space, is the cure. What ends a training
    (`training.loop.BadLoss`, `training.fitting.Stopped`) says its code itself.
    """
    try:
        yield
    except (FloatingPointError, KeyboardInterrupt) as error:
        if not hasattr(error, "exit_code"):
            raise
        log.log(logging.INFO if error.exit_code == STOPPED else logging.ERROR, "%s", error)
        sys.exit(error.exit_code)
    except (ConfigError, FileNotFoundError, TimeoutError) as error:
        log.error("%s", " ".join(str(error).split()))
        sys.exit(CONFIG_ERROR)
    except Exception as error:
        reason = disk_trouble(error)
        if reason is None:
            raise
        log.error("%s", reason)
        sys.exit(CONFIG_ERROR)


def disk_trouble(error: BaseException) -> str | None:
    """One line about a disk that is full or refuses, if that is what an exception is about; else None."""
    number = getattr(error, "errno", None)
    if number in _FULL | _REFUSED:
        return _disk_line(number, f"at {error.filename}" if error.filename else "")
    chain = [error]
    while (earlier := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(earlier)
    for link in chain:  # libraries wrap what the system said in errors of their own
        for number in _FULL:
            if getattr(link, "errno", None) == number or os.strerror(number) in str(link):
                return _disk_line(number, f"({' '.join(str(link).split())[:200]})")
    return None


def _disk_line(number: int, where: str) -> str:
    return f"{os.strerror(number)} {where}: {(_FULL | _REFUSED)[number]}, or choose another folder; then run the same command again."


def began() -> float:
    """When this process started, in seconds since the epoch; now where the system does not tell."""
    try:
        ticks = int(pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = float(pathlib.Path("/proc/uptime").read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
    except OSError:
        age = 0.0
    return time.time() - age


def run(main) -> None:
    """`absl.app.run` whose flag mistakes (an unknown key of the config, say) are one line and code 3 too."""
    from absl import app

    def parse(arguments):
        try:
            overrides.check(arguments)
            return flags.FLAGS(arguments)
        except (flags.Error, ValueError, KeyError, AttributeError, TypeError) as error:
            message = " ".join(str(error.args[0] if error.args else error).split())
            program = pathlib.Path(arguments[0])
            print(f"{(program.parent if program.stem == '__main__' else program).stem}: {message}", file=sys.stderr)
            sys.exit(CONFIG_ERROR)

    app.run(main, flags_parser=parse)
