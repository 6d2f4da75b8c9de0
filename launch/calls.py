"""Commands of a cluster's own tools: short ones that answer, long ones that are listened to."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from core.config import ConfigError
from launch import children

_KEPT = 1000  # lines of a command that may speak for weeks


class Halted(Exception):
    """The user wants an end while nothing trains, or at once."""


class Answer(NamedTuple):
    """What a short command said."""

    code: int
    out: str
    errors: str


def call(words: Sequence[str], cure: str, *, given: str = "", seconds: float = 900.0) -> Answer:
    """Runs a command that answers soon.

    Args:
        words: of the command.
        cure: what to do where it is not installed.
        given: its input.
        seconds: after which there is no answer; the code is then 1.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        done = subprocess.run(words, capture_output=True, text=True, input=given, timeout=seconds, start_new_session=True)
    except FileNotFoundError:
        raise ConfigError(f"{words[0]} is not on PATH; {cure}") from None
    except subprocess.TimeoutExpired:
        return Answer(1, "", f"no answer within {seconds:.0f} seconds")
    return Answer(done.returncode, done.stdout, done.stderr)


def error(said: str) -> str:
    """What a command says went wrong, from the first line that calls itself an error on, as one sentence."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    first = next((i for i, line in enumerate(lines) if line.lower().startswith("error")), len(lines) - 1)
    return (" ".join(lines[max(first, 0) :]) or "it says nothing").rstrip(".")[:500] + "."


def pause(seconds: float, stop: children.Stop, *, hurried: bool) -> None:
    """Waits.

    Raises:
        Halted: the user wants an end at once; or, where it is `hurried`, an end.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if stop.forced or (stop.wanted and hurried):
            raise Halted
        time.sleep(min(0.1, seconds))


def listen(
    words: Sequence[str],
    say: Callable[[str], None],
    kept: Callable[[str], object],
    wish: Callable[[], None],
    look: Callable[[], None] | None = None,
    every_seconds: float = 1.0,
) -> tuple[int, list[str]]:
    """Runs a command that speaks; its code, its first lines and those that `kept` wants.

    Args:
        words: of the command.
        say: takes each line.
        kept: whether a line is needed later.
        wish: called all the time; may raise, and the command is then ended.
        look: called every `every_seconds`; the same.
        every_seconds: between looks.
    """
    child, lines = children.start(words, os.environ), []
    reader = threading.Thread(target=_relay, args=(child.stdout, lines, say, kept), daemon=True)
    reader.start()
    due = time.monotonic() + every_seconds
    try:
        while child.poll() is None:
            wish()
            if look and time.monotonic() > due:
                look()
                due = time.monotonic() + every_seconds
            time.sleep(0.05)
    finally:
        end(child)
    reader.join(5)  # a grandchild may hold the pipe
    return child.returncode, lines


def end(child: subprocess.Popen) -> None:
    """Ends a command and what it started: gcloud starts ssh, which would live on."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _relay(stream, lines: list[str], say, kept) -> None:
    with stream:
        for line in stream:
            if text := line.rstrip():
                if len(lines) < _KEPT or kept(text):
                    lines.append(text)
                say(text)
