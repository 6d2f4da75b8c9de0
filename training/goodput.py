"""Where a run's wall time went, over all its starts: `W/goodput.json`, rewritten at each checkpoint, and a line at the end.

Evaluation is a process of its own, so training never pauses for it, and there is no such entry.
"""

import contextlib
import logging
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from core.workdir import read_json, write_json

# setup: from the start of the process to the loop, restoring included. checkpoint: inside a save, or waiting for the one before.
# lost: done after the last checkpoint, and so done again. down: from a crash to the next start, not after a stop that was asked for.
KINDS = ("step", "setup", "compile", "input_wait", "checkpoint", "lost", "down")

log = logging.getLogger(__name__)


class Goodput:
    """Adds up seconds by kind; whatever has no kind of its own is `step`."""

    def __init__(
        self, workdir: pathlib.Path, step: int, *, began: float | None = None, active: bool = True,
        clock: Callable[[], float] = time.time,
    ):  # fmt: skip
        """Begins at the end of the set-up, and settles what an earlier start has lost.

        Args:
            workdir: of the run.
            step: finished updates of the state that the run goes on from.
            began: when the process started, in seconds of `clock`; now by default.
            active: whether this process writes the file.
            clock: seconds since the epoch.
        """
        self._path, self._active, self._clock = workdir / "goodput.json", active, clock
        now = clock()
        began = now if began is None else began
        earlier = _read(self._path) if active else []
        if earlier:
            earlier[-1] = settle(earlier[-1], step, _last_sign(workdir / "metrics.jsonl"), began)
        self._earlier = earlier
        self._start = dict(began=began, until=now, first_step=step, last_step=step, ended=False, seconds=dict(setup=max(0.0, now - began)))
        self.save(step)

    @contextlib.contextmanager
    def spent(self, kind: str) -> Iterator[None]:
        """Time spent here is of this kind."""
        begin = self._clock()
        try:
            yield
        finally:
            seconds = self._start["seconds"]
            seconds[kind] = seconds.get(kind, 0.0) + self._clock() - begin

    def save(self, step: int, *, ended: bool = False) -> None:
        """Writes the file: what has been spent until now made `step` updates that are, or are being, saved.

        Args:
            step: finished updates.
            ended: the run is done or was asked to stop, so that nothing done so far is lost.
        """
        if not self._active:
            return
        self._start |= dict(until=self._clock(), last_step=step, ended=ended)
        starts = [*self._earlier, self._now()]
        seconds = totals(starts)
        try:
            write_json(self._path, {"goodput": share(seconds), "wall_seconds": sum(seconds.values()), "seconds": seconds, "starts": starts})
        except OSError as error:  # the summary is no reason to end a run
            log.warning("%s was not written: %s", self._path, error)

    def share(self) -> float:
        """Share of the wall time until now that went into steps whose result counts; of this process's own start where it is inactive."""
        self._start["until"] = self._clock()
        return share(totals([*self._earlier, self._now()]))

    def end(self, step: int, *, ended: bool) -> None:
        """Writes the file a last time, and says in one line where the time went."""
        self.save(step, ended=ended)
        if self._active:
            log.info("%s", summary(totals([*self._earlier, self._now()])))

    def _now(self) -> dict:
        seconds = dict(self._start["seconds"])
        seconds["step"] = max(0.0, self._start["until"] - self._start["began"] - sum(seconds.values()))
        return self._start | {"seconds": seconds}


def settle(start: Mapping, resumed: int, last_sign: float, began: float) -> dict:
    """A start once the next one is known: what it did after the checkpoint that counts is lost.

    Args:
        start: entry of the earlier start.
        resumed: step that the next start goes on from.
        last_sign: when the earlier start last wrote a metric.
        began: when the next process started.
    """
    seconds, steps = dict(start["seconds"]), start["last_step"] - start["first_step"]
    again = seconds["step"] * max(0, start["last_step"] - resumed) / steps if steps else 0.0
    seconds["step"] -= again
    alive = start["until"] if start["ended"] else max(start["until"], min(last_sign, began))
    seconds["lost"] = again + alive - start["until"]
    seconds["down"] = 0.0 if start["ended"] else max(0.0, began - alive)
    return dict(start) | {"last_step": min(start["last_step"], resumed), "seconds": seconds}


def totals(starts: Sequence[Mapping]) -> dict[str, float]:
    """Seconds by kind over all starts."""
    return {kind: sum(start["seconds"].get(kind, 0.0) for start in starts) for kind in KINDS}


def share(seconds: Mapping[str, float]) -> float:
    """Seconds of steps that count over all seconds; 0 where none have passed."""
    return seconds["step"] / max(sum(seconds.values()), 1e-9)


def summary(seconds: Mapping[str, float]) -> str:
    """One line for the log, the largest share first."""
    wall = max(sum(seconds.values()), 1e-9)
    parts = sorted(((value, kind) for kind, value in seconds.items() if value >= 0.05), reverse=True)
    return f"{wall:.1f} s of wall time: " + ", ".join(
        f"{kind.replace('_', ' ')} {value:.1f} s ({value / wall:.0%})" for value, kind in parts
    )


def _read(path: pathlib.Path) -> list[dict]:
    try:
        return read_json(path)["starts"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError) as error:
        log.warning("earlier starts are not counted: %s", error)
        return []


def _last_sign(path: pathlib.Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0
