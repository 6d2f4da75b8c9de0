"""Sets a process up: logging, the compilation cache, one or many hosts, and how mistakes end it.

Call these inside `main`: input workers import the launching module again, and must not start a second JAX.
"""

import contextlib
import faulthandler
import logging
import os
import pathlib
import sys
import tempfile

from absl import flags

from core.config import ConfigError
from launch import overrides, peers

DONE, CONFIG_ERROR, BAD_LOSS, STOPPED = 0, 3, 4, 75
COORDINATOR = "TANDEM_COORDINATOR"  # host:port, with TANDEM_PROCESSES and TANDEM_PROCESS beside it

log = logging.getLogger("tandem")


def start(nice: int = 0) -> peers.Aborts | None:
    """Prepares this process; a no-op beyond logging and the cache on one host.

    Several hosts: set `TANDEM_COORDINATOR=host:port TANDEM_PROCESSES=n TANDEM_PROCESS=i` on each, or `TANDEM_COORDINATOR=auto`
    where JAX itself recognises the cluster (SLURM, Open MPI, Cloud TPU, GKE).

    Returns:
        With several processes, what `peers.leaving` needs to end this one; None alone.
    """
    import jax

    faulthandler.enable()
    _quiet()
    if nice:
        os.nice(nice)
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR") or pathlib.Path(tempfile.gettempdir()) / f"tandem-cache-{os.getuid()}"
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    coordinator = os.environ.get(COORDINATOR)
    if coordinator:
        if os.environ.get("JAX_PLATFORMS") == "cpu":
            jax.config.update("jax_cpu_collectives_implementation", "gloo")
        auto = coordinator == "auto"
        jax.distributed.initialize(
            None if auto else coordinator,
            None if auto else int(os.environ["TANDEM_PROCESSES"]),
            None if auto else int(os.environ["TANDEM_PROCESS"]),
            shutdown_timeout_seconds=int(os.environ.get("TANDEM_PARTING_SECONDS", peers.PARTING_SECONDS)),
        )
    if jax.process_count() > 1 and jax.default_backend() == "cpu":
        # With jaxlib 0.10 a step with split parameters that several CPU processes load from the cache trains something else, and
        # something else every time; compiled anew by each it is right.
        jax.config.update("jax_enable_compilation_cache", False)
    _log_to_stderr(jax.process_index(), jax.process_count())
    return peers.Aborts() if jax.process_count() > 1 else None


def _log_to_stderr(index: int, count: int) -> None:
    prefix = f"[{index}] " if count > 1 else ""
    logging.basicConfig(
        stream=sys.stderr,
        force=True,
        level=logging.INFO if index == 0 else logging.ERROR,
        format=f"{prefix}%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
    )
    _quiet()


def _quiet() -> None:
    for name in ("absl", "jax", "orbax", "grain", "matplotlib", "fontTools", "PIL"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextlib.contextmanager
def exit_codes():
    """Ends the process on a user's mistake with one line and code 3, whatever raised it; other errors keep their traceback."""
    try:
        yield
    except (ConfigError, FileNotFoundError, TimeoutError) as error:
        log.error("%s", " ".join(str(error).split()))
        sys.exit(CONFIG_ERROR)


def run(main) -> None:
    """`absl.app.run` whose flag mistakes (an unknown key of the config, say) are one line and code 3 too."""
    from absl import app

    def parse(arguments):
        try:
            overrides.check(arguments)
            return flags.FLAGS(arguments)
        except (flags.Error, ValueError, KeyError, AttributeError, TypeError) as error:
            message = " ".join(str(error.args[0] if error.args else error).split())
            print(f"{pathlib.Path(arguments[0]).stem}: {message}", file=sys.stderr)
            sys.exit(CONFIG_ERROR)

    app.run(main, flags_parser=parse)
