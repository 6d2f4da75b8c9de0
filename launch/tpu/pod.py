"""What runs on a resource of Cloud TPU: code is brought to its workers, started and listened to, and again where it is taken away."""

import contextlib
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from core.config import ConfigError
from core.watchdog import LOST_PEER
from launch import calls, children, process, supervisor
from launch.tpu import commands, resource, ship

_TRIED = re.compile(r"connect to worker (\d+)")  # gcloud says so of each
_READY, _REFUSED = re.compile(r"^\[(\d+)\] ready$"), re.compile(r"^\[\d+\] refused: (.*)$")
_ENDED = re.compile(r"^\[(\d+)\] ended with code (\d+)$")
_CONTROL = re.compile("|".join(one.pattern for one in (_TRIED, _READY, _REFUSED, _ENDED)))


class Shipment(NamedTuple):
    """The code that goes to the workers."""

    root: pathlib.Path
    code: ship.Code


class Plan(NamedTuple):
    """What one resource does. A work beside runs while `main` does, one after when that ended well; either is an evaluation."""

    main: commands.Work
    beside: commands.Work | None = None
    after: commands.Work | None = None

    def works(self) -> list[commands.Work]:
        """All, in the order in which they start."""
        return [work for work in (self.beside, self.main, self.after) if work]


def to_stderr(line: str) -> None:
    """A line for whoever watches the launcher."""
    sys.stderr.write(line + "\n")


class Pod(resource.Resource):
    """A resource and its workers.

    Args:
        cluster: checked fields of the cluster file.
        name: of the resource; there is one for a workdir.
        stop: the user's wish.
        say: takes the lines of workers and commands.
    """

    def __init__(self, cluster: ConfigDict, name: str, stop: children.Stop, say: Callable[[str], None] = to_stderr):
        super().__init__(cluster, name, stop)
        self.say = say
        self.workers: set[int] = set()

    def run(self, plan: Plan, shipment: Shipment, *, restarts: int, keep: bool) -> int:
        """Runs a plan to its end, on as many resources as it takes; gives the last one back.

        Args:
            plan: the works.
            shipment: their code.
            restarts: how often a command that crashed starts again from its last checkpoint.
            keep: leave the resource, for the same command to go on with.

        Returns:
            The code of the main work.

        Raises:
            ConfigError: Google refuses the resource, it never becomes active, or its workers cannot be set up.
        """
        crashes = losses = 0
        try:
            while True:
                try:
                    self.acquire(again=losses > 0)
                    self.prepare(shipment)
                    code = self.work(plan, shipment.code)
                except resource.Lost as loss:
                    losses += 1
                    if losses > self.cluster.losses:
                        process.log.error("%s; that was loss %d, giving up", loss, losses)
                        return LOST_PEER
                    process.log.warning("%s; taking another one, to go on from the last checkpoint", loss)
                    self.delete()
                    continue
                if code in (process.DONE, *supervisor.FINAL) or self.stop.wanted or crashes == restarts:
                    return code
                crashes += 1
                process.log.error(
                    "the run ended with code %d; starting it again from the last checkpoint, %d of %d", code, crashes, restarts
                )
        except calls.Halted:
            return LOST_PEER if self.stop.forced else process.STOPPED
        finally:
            if self.mine and not keep:
                self.delete(wait=not self.stop.forced)
            elif self.mine or self.found:
                process.log.info("%s stays, and costs money; --action=delete gives it back", self.name)

    def prepare(self, shipment: Shipment) -> None:
        """Brings code and packages to every worker.

        Raises:
            ConfigError: the set-up fails on a worker, or one was never reached.
            Lost: the resource went, or a worker that was there before.
        """
        code, tried = shipment.code, set()
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / commands.ARCHIVE.format(code=code.name)
            ship.write(shipment.root, code, path)
            for _ in range(self.cluster.connect_attempts):
                failed, lines = self._listen(commands.copy(self.cluster, self.name, str(path)))
                if not failed:
                    lines += self._listen(commands.ssh(self.cluster, self.name, commands.setup(self.cluster, code.name)))[1]
                ready = {int(found[1]) for line in lines if (found := _READY.match(line))}
                tried |= ready | {int(number) for line in lines for number in _TRIED.findall(line)}
                if ready and ready == tried:
                    self.workers = ready
                    return
                if why := next((found[1] for line in lines if (found := _REFUSED.match(line))), None):
                    raise ConfigError(f"{self.name}: {why}; the lines above say more, and cluster.setup runs first.")
                self.check_active()
                self.pause()
        absent = ", ".join(map(str, sorted(tried - ready))) or "all"
        if self.workers:
            raise resource.Lost(f"{self.name}: workers {absent} do not answer")
        raise ConfigError(
            f"{self.name}: workers {absent} do not answer through ssh after {self.cluster.connect_attempts} attempts; "
            "the lines above say why. Run `ssh-add ~/.ssh/google_compute_engine`, and look whether cluster.network lets port 22 in."
        )

    def work(self, plan: Plan, code: ship.Code) -> int:
        """Runs the works of a plan; the code of the main one."""
        for work in filter(None, (plan.beside, plan.main)):
            self.start(work, code)
        ended, rest = self.follow(plan.main, code), plan.after or plan.beside
        if ended != process.DONE or self.stop.wanted:
            if plan.beside:
                self._ask(plan.beside, code).wait()
        elif rest:
            if plan.after:
                self.start(plan.after, code)
            if evaluated := self.follow(rest, code):
                process.log.error("evaluation ended with code %d; training is done", evaluated)
        return ended

    def start(self, work: commands.Work, code: ship.Code) -> None:
        """Starts a work, unless it runs already.

        Raises:
            ConfigError: a worker runs something else.
            Lost: workers do not answer.
        """
        for _ in range(self.cluster.connect_attempts):
            command = commands.start(code.name, code.commit, work)
            failed, lines = self._listen(commands.ssh(self.cluster, self.name, command, work.worker), hurried=False)
            if not failed:
                self.mine = True
                return
            if why := next((found[1] for line in lines if (found := _REFUSED.match(line))), None):
                raise ConfigError(f"{self.name}: {why}. Wait for it, or end it with --action=delete.")
            self.check_active()
            self.pause()
        raise resource.Lost(f"{self.name}: workers do not answer")

    def follow(self, work: commands.Work, code: ship.Code) -> int:
        """Says what a work says until it ends on every worker; the code of the whole. A wish to stop is passed on to it.

        Raises:
            Lost: the resource went, or a worker stays out of reach.
        """
        ends: dict[int, int] = {}
        wanted = self.workers if work.worker == "all" else {int(work.worker)}
        lines, silent = "+1", 0
        while silent < self.cluster.connect_attempts:
            heard = self._attend(work, code, lines)
            ends |= {int(found[1]): int(found[2]) for line in heard if (found := _ENDED.match(line))}
            missing = sorted(wanted - set(ends))
            if not missing:
                return self._verdict(ends)
            self.check_active()
            lines = "10"
            silent = 0 if any(line.startswith(f"[{worker}] ") for line in heard for worker in missing) else silent + 1
            process.log.warning("the connection to workers %s broke; listening again", ", ".join(map(str, missing)))
            self.pause(hurried=False)
        raise resource.Lost(f"{self.name}: workers {', '.join(map(str, missing))} do not answer")

    def _attend(self, work: commands.Work, code: ship.Code, lines: str) -> list[str]:
        """Listens to a work over one connection; what it said."""
        asking = None

        def wish() -> None:
            nonlocal asking
            if self.stop.forced:
                raise calls.Halted
            if self.stop.wanted and (asking is None or asking.poll()):  # again, where asking failed
                asking = self._ask(work, code)

        look = lambda: self.check_active(patient=False)
        words = commands.ssh(self.cluster, self.name, commands.follow(code.name, work.label, lines=lines), work.worker)
        try:
            return calls.listen(words, self.say, _CONTROL.search, wish, look, self.cluster.poll_seconds)[1]
        finally:
            if asking is not None:
                calls.end(asking)

    def _verdict(self, ends: dict[int, int]) -> int:
        codes = {worker: code if code <= 128 else 128 - code for worker, code in ends.items()}  # a shell's way to say a signal
        code, worker = supervisor.verdict(list(codes), codes)
        if code not in (process.DONE, process.CONFIG_ERROR, process.BAD_LOSS) and not self.stop.wanted:
            # Before a resource is taken away its processes get SIGTERM, or lose each other; its state says so a little later.
            for _ in range(6 if code == process.STOPPED else 3):
                self.check_active()
                self.pause(hurried=False)
            process.log.error("worker %d ended first, with code %d", worker, ends[worker])
        return code

    def show(self, command: str) -> None:
        """Says what a shell command on all workers says, until it ends or the user wants no more."""
        with contextlib.suppress(calls.Halted):
            self._listen(commands.ssh(self.cluster, self.name, command))

    def _listen(self, words: Sequence[str], *, hurried: bool = True) -> tuple[int, list[str]]:
        """Code and lines of a command; a wish to stop ends it where it is `hurried`."""

        def wish() -> None:
            if self.stop.forced or (self.stop.wanted and hurried):
                raise calls.Halted

        return calls.listen(words, self.say, _CONTROL.search, wish)

    def _ask(self, work: commands.Work, code: ship.Code) -> subprocess.Popen:
        process.log.info("asking the workers to save and leave")
        words = commands.ssh(self.cluster, self.name, commands.stop(code.name, work.label), work.worker)
        return children.start(words, os.environ, subprocess.DEVNULL)
