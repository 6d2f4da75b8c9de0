"""Commands as jobs of SLURM: submitted, joined where they wait or run already, watched through the queue and the code that they leave."""

import contextlib
import pathlib
import re
import time
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from core.config import ConfigError
from core.workdir import locked, read_json, write_json
from launch import process
from launch.slurm import queue, script

DEFAULTS = script.DEFAULTS
LAG_SECONDS = 10.0  # a shared disk may show what another machine wrote only after a while
LOST = -9  # a job that left no code was killed, or its node died


def starter(cluster: ConfigDict):
    """What starts the processes of a sweep as jobs; one program watches them all with one call.

    Args:
        cluster: of a cluster file, with `DEFAULTS`.

    Returns:
        `start(words, variables, output)`, whose result can be watched as a `subprocess.Popen` can.

    Raises:
        ConfigError: a wrong value.
    """
    script.check(cluster)
    watched = queue.Queue(cluster.poll_seconds)

    def start(words: Sequence[str], variables: Mapping[str, str], output) -> Job:
        log = pathlib.Path(output.name).resolve()
        kind = "evaluate" if "launch.evaluate" in words else "train"
        work = script.Work(kind, words, log.parent / "slurm", escaped(log), f"{name_of(log.parent.name)}-{kind}", variables=variables)
        with joining(work) as earlier:
            if earlier is not None and watched.holds(earlier["job"]):
                if earlier["words"] != list(words):
                    raise ConfigError(f"job {earlier['job']} uses {log.parent} for something else; end it: scancel {earlier['job']}")
                return Job(earlier["job"], work.folder, watched)
            number = submit(cluster, work)
        watched.add(number)
        return Job(number, work.folder, watched)

    return start


@contextlib.contextmanager
def joining(work: script.Work):
    """Holds the folder while one decides about a job of this kind there; gives the one that was submitted last, or None."""
    with locked(work.folder, "submitted to", name=f"{work.kind}.lock"):
        path = work.folder / f"{work.kind}.json"
        yield read_json(path) if path.exists() else None


def submit(cluster: ConfigDict, work: script.Work, options: Sequence[str] = ()) -> str:
    """Writes the script of a command and submits it; the job's number."""
    path = work.folder / f"{work.kind}.sbatch"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script.text(cluster, work))
    number = queue.submit(path, options)
    write_json(work.folder / f"{work.kind}.json", {"job": number, "words": list(work.words)})
    return number


def escaped(path: pathlib.Path) -> str:
    """A path as SLURM's patterns write it."""
    return str(path).replace("%", "%%")


def name_of(path: str) -> str:
    """A path as a name of one word."""
    return re.sub(r"[^\w.-]+", "_", path).strip("_") or "tandem"


class Job:
    """A job, as a process: its code is that of its last start, `STOPPED` if it was asked to stop before it began."""

    def __init__(self, number: str, folder: pathlib.Path, watched: queue.Queue):
        self.number, self.returncode = number, None
        self._path, self._queue = folder / f"{number}.code", watched
        self._gone = None  # since when the queue does not hold it
        self._without_code = LOST

    def poll(self) -> int | None:
        if self.returncode is None and not self._queue.holds(self.number):
            self._gone = self._gone or time.monotonic()
            self.returncode = self._code()
        return self.returncode

    def _code(self) -> int | None:
        try:
            return int(self._path.read_text())
        except (OSError, ValueError):  # not there, or not whole
            asked = self._without_code == process.STOPPED
            return self._without_code if asked or time.monotonic() - self._gone > LAG_SECONDS else None

    def terminate(self) -> None:
        if self.poll() is None:
            self._without_code = process.STOPPED
            queue.stop(self.number)

    def kill(self) -> None:
        if self.poll() is None:
            queue.cancel(self.number)

    def wait(self) -> int:
        while self.poll() is None:
            time.sleep(0.2)
        return self.returncode
