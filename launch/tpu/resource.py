"""A queued resource of Cloud TPU: asked for until it is active, looked at, given back."""

import json
import time
from collections.abc import Callable

from ml_collections import ConfigDict

from core.config import ConfigError
from launch import calls, children, process
from launch.tpu import commands

ACTIVE, ABSENT = "ACTIVE", "ABSENT"
_DEAD = ("FAILED", "SUSPENDING", "SUSPENDED", "DELETING")  # nothing runs there any more
_FILE = "the cluster file"
_CURE = "install the Google Cloud CLI, and run `gcloud auth login`."


class Lost(Exception):
    """The resource was taken away, or a worker of it is out of reach: another one has to take its place."""


class Resource:
    """One resource, by its name.

    Args:
        cluster: checked fields of the cluster file.
        name: of the resource; there is one for a workdir.
        stop: the user's wish.
    """

    def __init__(self, cluster: ConfigDict, name: str, stop: children.Stop):
        self.cluster, self.name, self.stop = cluster, name, stop
        self.mine = False  # asked for, or put to work: what others use is not given back
        self.found = False  # there before this launcher
        self.known = False  # Google has told its state once: where it does not later, the network is down

    def acquire(self, *, again: bool = False) -> None:
        """Makes the resource active; does nothing where it is already.

        Raises:
            ConfigError: refused, or not active in time.
            Lost: the same, of one that replaces (`again`) another: there was capacity before.
        """
        refused: Callable[[str], Exception] = Lost if again else ConfigError
        if (there := self.state()[0]) in _DEAD:
            self.delete()
        self.found = there not in (*_DEAD, ABSENT) and not self.mine
        if self.state()[0] == ABSENT:
            process.log.info("asking for %s: %s in %s", self.name, self.cluster.accelerator_type, self.cluster.zone)
            code, _, said = calls.call(commands.create(self.cluster, self.name), _CURE)
            if code and "ALREADY_EXISTS" not in said:
                self.pause()
                raise refused(
                    f"Cloud TPU refuses {self.name}: {calls.error(said)} Look at project, zone, accelerator_type and spot in {_FILE}."
                )
            self.mine = True
        before, deadline = None, time.monotonic() + self.cluster.wait_seconds
        while (state := self.state())[0] != ACTIVE:
            if state[0] in (*_DEAD, ABSENT):
                raise refused(
                    f"{self.name} is {state[0]}{': ' + state[1] if state[1] else ''}; look at zone, accelerator_type and spot in {_FILE}."
                )
            if time.monotonic() > deadline:
                raise ConfigError(
                    f"{self.name} is still {state[0]} after {self.cluster.wait_seconds:.0f} seconds; "
                    "set cluster.wait_seconds higher, or another zone or accelerator_type."
                )
            if state != before:
                process.log.info("%s is %s", self.name, state[0])
            before = state
            self.pause()
        process.log.info("%s is %s", self.name, ACTIVE)

    def state(self) -> tuple[str, str]:
        """The state of the resource, `ABSENT` where there is none, and what Google says of it.

        Raises:
            ConfigError: Google does not tell, again and again.
        """
        for _ in range(self.cluster.connect_attempts * (100 if self.known else 1)):
            found, said = self._ask_google()
            if found is not None:
                self.known = True
                return found
            self.pause(hurried=False)
        raise ConfigError(f"gcloud does not tell the state of {self.name}: {said} Look at project and zone in {_FILE}.")

    def _ask_google(self) -> tuple[tuple[str, str] | None, str]:
        """The state, None where Google does not tell; and then why."""
        code, out, said = calls.call(commands.describe(self.cluster, self.name), _CURE)
        if code:
            return ((ABSENT, "") if "NOT_FOUND" in said else None), calls.error(said)
        found = json.loads(out)["state"]
        errors = [data["error"]["message"] for data in found.values() if isinstance(data, dict) and "error" in data]
        return (found["state"], " ".join(errors)), ""

    def delete(self, *, wait: bool = True) -> bool:
        """Gives the resource back; whether there was one. What cannot be deleted is said, with the command to try again."""
        words = commands.delete(self.cluster, self.name, wait=wait)
        for _ in range(self.cluster.connect_attempts):
            code, _, said = calls.call(words, _CURE)
            if not code or "NOT_FOUND" in said:
                process.log.info("%s is %s", self.name, "given back" if not code else "gone")
                return not code
            time.sleep(self.cluster.poll_seconds)
        process.log.error("%s could NOT be given back, and costs money: %s Run: %s", self.name, calls.error(said), " ".join(words))
        return False

    def check_active(self, *, patient: bool = True) -> None:
        """Looks whether it is still there; where it is not `patient`, Google may not tell.

        Raises:
            Lost: it is not.
        """
        state, why = self.state() if patient else self._ask_google()[0] or (ACTIVE, "")  # a look may fail
        if state != ACTIVE:
            raise Lost(f"{self.name} was taken away: it is {state}{': ' + why if why else ''}")

    def pause(self, *, hurried: bool = True) -> None:
        """Waits between looks; a wish to stop raises where it is `hurried`, one to end at once in any case."""
        calls.pause(self.cluster.poll_seconds, self.stop, hurried=hurried)
