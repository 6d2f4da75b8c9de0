"""Evaluation next to training: where `--eval` puts it, what both get for it, and a process that is kept going while training is.

An evaluation that crashes never ends training; it is started again, and what became of it is a line and the launcher's code.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from core.config import ConfigError, choose
from launch import children, process

CPU, DEVICES, JOB, AFTER, NONE = "cpu", "devices", "job", "after", "none"
CRASHED = 1


class Place(NamedTuple):
    """Where evaluation happens: on the CPU beside training, on GPUs of its own, as a second job of a cluster, after training, or not."""

    kind: str
    devices: tuple[str, ...] = ()


def parse(text: str, allowed: Sequence[str], cure: str = "") -> Place:
    """What `--eval` says.

    Args:
        text: `cpu`, `devices:0,1`, `job`, `after` or `none`.
        allowed: the kinds that a launcher has.
        cure: added to the refusal of a kind that only other launchers have.

    Raises:
        ConfigError: another word, or a kind that this launcher does not have.
    """
    kind, _, listed = text.partition(":")
    choose(dict.fromkeys((CPU, DEVICES, JOB, AFTER, NONE)), kind, "--eval")
    if kind not in allowed:
        raise ConfigError(f"--eval={text} is not for this launcher, which has: {', '.join(allowed)}. {cure}".strip())
    names = tuple(name.strip() for name in listed.split(",") if name.strip())
    if bool(names) != (kind == DEVICES) or len(set(names)) < len(names):
        raise ConfigError(f"--eval={text}: name each device once, and only with devices, as in --eval=devices:3.")
    return Place(kind, names)


def split(place: Place, gpus: Sequence[str]) -> tuple[list[str], Mapping[str, str]]:
    """The GPUs that are left for training, and the variables of the evaluation: no device is in both.

    Raises:
        ConfigError: a device that is not there, or none left.
    """
    if place.kind != DEVICES:
        return list(gpus), {"JAX_PLATFORMS": "cpu"} if place.kind == CPU else {}
    strange = [name for name in place.devices if name not in gpus]
    rest = [name for name in gpus if name not in place.devices]
    if strange or not rest:
        raise ConfigError(
            f"--eval=devices:{','.join(place.devices)} needs {'GPU ' + strange[0] if strange else 'a GPU that it leaves to training'}, "
            f"but processes here may use {'GPU ' + ', '.join(gpus) if gpus else 'no GPU'}; choose other devices, or --eval=cpu."
        )
    return rest, {"CUDA_VISIBLE_DEVICES": ",".join(place.devices)}


def words(place: Place, workdir: str) -> list[str]:
    """The words of the evaluation after `python -m`."""
    follow = [] if place.kind == AFTER else ["--follow", "--timeout_seconds=inf"]  # its launcher knows whether training still runs
    return ["launch.evaluate", f"--workdir={workdir}", *follow, *(["--nice=19"] if place.kind == CPU else [])]


class Keeper:
    """Keeps an evaluation going beside training, and lets it finish afterwards."""

    def __init__(self, start: Callable[[], Any], restarts: int):
        """Starts nothing yet.

        Args:
            start: starts the process and returns it, as `subprocess.Popen`.
            restarts: how often it is started again after a crash.
        """
        self._start, self._left, self._child, self._code = start, restarts, None, process.DONE

    def look(self) -> None:
        """Starts it, or starts it again if it has ended, as long as that may help."""
        if self._gave_up() or (self._child is not None and self._child.poll() is None):
            return
        if self._child is not None:
            self._note(self._child.returncode)
        if not self._gave_up():
            self._child = self._start()

    def _note(self, code: int) -> None:
        self._code, self._child = code, None
        if code == process.DONE:  # it met what an earlier run had left, before training began anew
            return
        self._left = -1 if code == process.CONFIG_ERROR else self._left - 1
        then = "it is not started again" if self._gave_up() else "starting it again"
        process.log.error("evaluation ended with %s; %s", children.how(code), then)

    def _gave_up(self) -> bool:
        return self._left < 0

    def finish(self, stop: children.Stop) -> int:
        """After training: waits until every checkpoint is evaluated; the evaluation's code, 1 for one that a signal ended."""
        while not (self._gave_up() or stop.wanted):
            if self._child is not None and self._child.poll() == process.DONE:
                return process.DONE
            self.look()
            time.sleep(0.05)
        if stop.wanted:
            return process.STOPPED
        return max(self._code, CRASHED)

    def close(self) -> None:
        """Ends it; what is not evaluated yet, its next start will find."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
