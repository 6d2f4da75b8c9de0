"""Commands as jobs of SLURM: submitted, joined where they wait or run already, watched through the queue and the code that they leave."""

import contextlib
import pathlib
import re
import time
from collections.abc import Iterable, Mapping, Sequence

from ml_collections import ConfigDict

from core.config import ConfigError
from core.workdir import locked, read_json, write_json
from launch import process
from launch.slurm import queue, script

DEFAULTS = script.DEFAULTS
LAG_SECONDS = 10.0  # a shared disk may show what another machine wrote only after a while
LOST = -9  # a job that left no code was killed, or its node died


class Jobs:
    """Starts the processes of a sweep as jobs, and watches them all with one look; those that are known beforehand as one array job.

    Args:
        cluster: of a cluster file, with `DEFAULTS`.

    Raises:
        ConfigError: a wrong value.
    """

    def __init__(self, cluster: ConfigDict):
        script.check(cluster)
        self._cluster, self._queue = cluster, queue.Queue(cluster.poll_seconds)
        self._announced: dict[tuple[str, ...], str] = {}  # words to the job that nobody waits for yet

    def start(self, words: Sequence[str], variables: Mapping[str, str], output) -> "Job":
        """A job that can be watched as a `subprocess.Popen` can: the one announced, the one that is still there, or a new one."""
        work = work_of(words, pathlib.Path(output.name), variables)
        if (announced := self._announced.pop(tuple(words), None)) is not None:
            return Job(announced, work.folder, self._queue)
        with joining(work) as earlier:
            if (number := self._there(work, earlier)) is None:
                number = submit(self._cluster, work)
                self._queue.add(number)
        return Job(number, work.folder, self._queue)

    def announce(self, folder: pathlib.Path, commands: Sequence[tuple[Sequence[str], pathlib.Path]], parallel: int) -> None:
        """Submits what will be started as one array job, but for what is still in the queue or has ended well.

        Args:
            folder: of the sweep; the script goes to its `slurm/`.
            commands: words and log of each, in the order of their starts.
            parallel: tasks at once.
        """
        new = []
        for work in (work_of(words, log) for words, log in commands):
            with joining(work) as earlier:
                number = self._there(work, earlier) or _done(work, earlier)
            if number is None:
                new.append(work)
            else:
                self._announced[tuple(work.words)] = number
        if not new:
            return
        try:
            numbers = submit_array(self._cluster, folder, new, parallel)
        except ConfigError as error:  # more tasks than the cluster allows
            process.log.warning("%s; so each of the %d trainings becomes a job of its own", error, len(new))
            return
        self._queue.add(*numbers)
        self._announced |= {tuple(work.words): number for work, number in zip(new, numbers, strict=True)}

    def withdraw(self, commands: Iterable[Sequence[str]] | None = None) -> None:
        """Lets what was announced but never started save and leave, and takes back what waits; everything, or these words."""
        every = list(self._announced) if commands is None else map(tuple, commands)
        numbers = [self._announced.pop(words) for words in every if words in self._announced]
        if there := [number for number in numbers if self._queue.holds(number)]:
            queue.stop(*there)

    def _there(self, work: script.Work, earlier: dict | None) -> str | None:
        """The job of a folder that has not ended."""
        if earlier is None or not self._queue.holds(earlier["job"]):
            return None
        if earlier["words"] != list(work.words):
            number, place = earlier["job"], work.folder.parent
            raise ConfigError(f"job {number} uses {place} for something else; end it: scancel {number}")
        return earlier["job"]


def work_of(words: Sequence[str], log: pathlib.Path, variables: Mapping[str, str] = {}) -> script.Work:
    """What a sweep starts, whose scripts and codes lie beside its log."""
    log, kind = log.resolve(), "evaluate" if "launch.evaluate" in words else "train"
    return script.Work(kind, words, log.parent / "slurm", escaped(log), f"{name_of(log.parent.name)}-{kind}", variables=variables)


def _done(work: script.Work, earlier: dict | None) -> str | None:
    """The job of a folder that has ended well."""
    if earlier is None or earlier["words"] != list(work.words):
        return None
    return earlier["job"] if _left(work.folder / f"{earlier['job']}.code") == process.DONE else None


def _left(path: pathlib.Path) -> int | None:
    """The code that a job has left, if it is there and whole."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def joining(work: script.Work):
    """Holds the folder while one decides about a job of this kind there; gives the one that was submitted last, or None."""
    with locked(work.folder, "submitted to", name=f"{work.kind}.lock"):
        path = work.folder / f"{work.kind}.json"
        yield read_json(path) if path.exists() else None


def submit(cluster: ConfigDict, work: script.Work, options: Sequence[str] = ()) -> str:
    """Writes the script of a command and submits it; the job's number."""
    number = _submit(cluster, work, options)
    _record(work, number)
    return number


def submit_array(cluster: ConfigDict, folder: pathlib.Path, works: Sequence[script.Work], parallel: int) -> list[str]:
    """Writes one script for trainings and submits it as an array job; the number of each task."""
    logs, name = folder.resolve() / "slurm", f"{name_of(folder.resolve().name)}-train"
    # Each task writes to its own log; what SLURM itself says of the tasks is in this one.
    whole = script.Work("train", (), logs, f"{escaped(logs)}/train-%A.log", name, tasks=works, parallel=parallel)
    array = _submit(cluster, whole)
    numbers = [f"{array}_{index}" for index in range(len(works))]
    for work, number in zip(works, numbers, strict=True):
        _record(work, number)
    process.log.info("array job %s: %d trainings, %d at a time", array, len(works), parallel)
    return numbers


def _submit(cluster: ConfigDict, work: script.Work, options: Sequence[str] = ()) -> str:
    path = work.folder / f"{work.kind}.sbatch"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script.text(cluster, work))
    return queue.submit(path, options)


def _record(work: script.Work, number: str) -> None:
    write_json(work.folder / f"{work.kind}.json", {"job": number, "words": list(work.words)})


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
        code, asked = _left(self._path), self._without_code == process.STOPPED
        return self._without_code if code is None and (asked or time.monotonic() - self._gone > LAG_SECONDS) else code

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
