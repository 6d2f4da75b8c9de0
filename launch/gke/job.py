"""A run on Kubernetes: applied as a JobSet, listened to, and ended with the trainer's code. The JobSet restarts what crashes by itself."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml
from ml_collections import ConfigDict

from core.config import ConfigError
from core.watchdog import LOST_PEER
from launch import beside, calls, children, clusters, process, supervisor
from launch.gke import manifest

DEFAULTS = manifest.DEFAULTS
EVALS = (beside.JOB, beside.NONE)
ATTEMPTS = 100  # to ask the cluster, once it has answered: the network may be down for a while
_CURE = "install it, and run `gcloud container clusters get-credentials CLUSTER`."
_LABELS = "jobset.sigs.k8s.io/"


def written(cluster: ConfigDict, words: Sequence[str], evaluation: str) -> str:
    """The file of a run, as YAML."""
    return yaml.safe_dump(made(cluster, words, {}, evaluation, cluster.restarts), sort_keys=False, width=1000)


def made(cluster: ConfigDict, words: Sequence[str], variables: Mapping[str, str], evaluation: str, restarts: int) -> dict[str, Any]:
    """The JobSet of a command.

    Raises:
        ConfigError: the workdir is a folder of each node alone, or fields contradict each other.
    """
    clusters.check_workdir(words, list(cluster.volumes.values()), "cluster.volumes")
    name = clusters.name_of(cluster.name, words)
    if tuple(words[:3]) == clusters.EVALUATE:
        return manifest.alone(cluster, name, words, variables)
    own = beside.words(beside.Place(beside.JOB), clusters.workdir_of(words)) if evaluation == beside.JOB else None
    follow = ["python", "-m", *own] if own else None
    return manifest.jobset(cluster, name, words, variables, follow, restarts)


def kubectl(cluster: ConfigDict, *words: str) -> list[str]:
    """A command about this cluster."""
    return ["kubectl", *([f"--context={cluster.context}"] if cluster.context else []), f"--namespace={cluster.namespace}", *words]


def starter(cluster: ConfigDict) -> Callable:
    """What starts the processes of a sweep as JobSets: `(words, variables, output) -> child`. Evaluations need no accelerator."""

    def start(words: Sequence[str], variables: Mapping[str, str], output) -> clusters.Child:
        one = Run(
            cluster,
            made(cluster, words, variables, "none", cluster.restarts),
            children.Stop(),
            lambda line: print(line, file=output, flush=True),
        )
        return clusters.Child(one.run, one.stop, one.say)

    return start


def to_stderr(line: str) -> None:
    """A line for whoever watches the launcher."""
    sys.stderr.write(line + "\n")


class Run:
    """One JobSet in a cluster.

    Args:
        cluster: checked fields of the cluster file.
        wanted: the JobSet.
        stop: the user's wish.
        say: takes the lines of processes and commands.
    """

    def __init__(self, cluster: ConfigDict, wanted: dict[str, Any], stop: children.Stop, say: Callable[[str], None] = to_stderr):
        self.cluster, self.wanted, self.stop, self.say = cluster, wanted, stop, say
        self.name = wanted["metadata"]["name"]
        self.main = wanted["spec"]["replicatedJobs"][0]
        self._known, self._logs, self._heard = False, None, 0

    def run(self) -> int:
        """Applies the JobSet, or joins the one that an earlier launcher left, and says what its processes say; their exit code.

        Raises:
            ConfigError: the cluster refuses it, another command runs under its name, or its processes do not all start in time.
        """
        found = self.look()
        if found and _over(found):
            self.delete()
            found = None
        command = self.wanted["metadata"]["annotations"][manifest.ANNOTATION]
        if found and (there := found["metadata"].get("annotations", {}).get(manifest.ANNOTATION)) != command:
            raise ConfigError(f"JobSet {self.name} runs another command: {there}. Wait for it, or end it with --action=delete.")
        if not found:
            code, _, said = self._call("apply", "--filename=-", given=yaml.safe_dump(self.wanted, sort_keys=False))
            if code:
                raise ConfigError(
                    f"the cluster refuses JobSet {self.name}: {calls.error(said)} Look at the cluster file; is JobSet installed?"
                )
        process.log.info("JobSet %s %s", self.name, "goes on" if found else "is applied")
        try:
            return self._follow()
        finally:
            self._hush()

    def _follow(self) -> int:
        restarts, deadline = 0, time.monotonic() + self.cluster.wait_seconds
        while True:
            if self.stop.wanted:
                process.log.info("asking the processes to save and leave")
                self.delete(wait=not self.stop.forced)
                return LOST_PEER if self.stop.forced else process.STOPPED
            found = self.look()
            if found is None:
                process.log.error("JobSet %s was deleted; its processes were asked to save", self.name)
                return process.STOPPED
            status = found.get("status", {})
            if over := _over(found):
                self._listen(last=True)
                code = process.DONE if over == "Completed" else self._code()
                process.log.info("JobSet %s: %s", self.name, over)
                return code
            if status.get("restarts", 0) != restarts:
                restarts = status["restarts"]
                process.log.warning(
                    "restart %d of %d, from the last checkpoint", restarts, self.wanted["spec"]["failurePolicy"]["maxRestarts"]
                )
            ready = sum(job["ready"] for job in status.get("replicatedJobsStatus", []) if job["name"] == self.main["name"])
            if ready == self.main["replicas"]:
                deadline = float("inf")
                self._listen()
            if time.monotonic() > deadline:
                waiting = self._waiting()
                self.delete()
                raise ConfigError(
                    f"JobSet {self.name} did not start all its processes within {self.cluster.wait_seconds:.0f} seconds: {waiting}; "
                    "look at accelerator, topology and node_pool in the cluster file, or set cluster.wait_seconds higher."
                )
            self._pause()

    def look(self) -> dict[str, Any] | None:
        """The JobSet as the cluster has it.

        Raises:
            ConfigError: the cluster does not tell, again and again.
        """
        for _ in range(ATTEMPTS if self._known else 3):
            code, out, said = self._call("get", "jobset", self.name, "--output=json", "--ignore-not-found")
            if not code:
                self._known = True
                return json.loads(out) if out.strip() else None
            self._pause()
        raise ConfigError(
            f"kubectl does not tell about JobSet {self.name}: {calls.error(said)} Look at cluster.context; is JobSet installed?"
        )

    def delete(self, *, wait: bool = True) -> None:
        """Ends the JobSet: its processes get SIGTERM, and time to save."""
        seconds = self.cluster.grace_seconds + 60
        words = ["--cascade=foreground", f"--timeout={seconds}s"] if wait else ["--wait=false"]
        code, _, said = self._call("delete", "jobset", self.name, "--ignore-not-found", *words, seconds=seconds + 60)
        if code:
            process.log.error(
                "JobSet %s could NOT be deleted: %s Run: %s",
                self.name,
                calls.error(said),
                " ".join(kubectl(self.cluster, "delete", "jobset", self.name)),
            )

    def status(self) -> str:
        """One line about the JobSet, and one about each process."""
        found = self.look()
        lines = [f"{self.name}: {'absent' if found is None else _over(found) or 'runs'}"]
        return "\n".join(lines + [f"{pod['metadata']['name']}: {pod['status']['phase']}" for pod in self._pods()])

    def _pods(self) -> list[dict[str, Any]]:
        selector = f"--selector={_LABELS}jobset-name={self.name},{_LABELS}replicatedjob-name={self.main['name']}"
        code, out, _ = self._call("get", "pods", selector, "--output=json")
        return [] if code else json.loads(out)["items"]

    def _code(self) -> int:
        """The code of the whole, from the processes of the last restart."""
        attempts: dict[int, list] = {}
        for pod in self._pods():
            for one in pod["status"].get("containerStatuses", []):
                if ended := one["state"].get("terminated"):
                    attempt = int(pod["metadata"]["labels"].get(_LABELS + "restart-attempt", 0))
                    attempts.setdefault(attempt, []).append((ended.get("finishedAt", ""), pod["metadata"]["name"], ended["exitCode"]))
        if not attempts:
            process.log.error("JobSet %s failed, and no process of it is left to say why", self.name)
            return 1
        ends = sorted(attempts[max(attempts)])
        codes = {place: code if code <= 128 else 128 - code for place, (_, _, code) in enumerate(ends)}  # a shell's way to say a signal
        code, place = supervisor.verdict(list(codes), codes)
        process.log.error("%s decided it, with code %d", ends[place][1], ends[place][2])
        return code

    def _waiting(self) -> str:
        pods = self._pods()
        waiting = [pod["metadata"]["name"] for pod in pods if pod["status"].get("phase") == "Pending"]
        why = [
            one["message"] for pod in pods for one in pod["status"].get("conditions", []) if one["status"] == "False" and one.get("message")
        ]
        return (", ".join(waiting) + " wait" if waiting else "there are no pods") + (f" ({why[0]})" if why else "")

    def _listen(self, *, last: bool = False) -> None:
        """Keeps passing on what processes say; with `last`, once more until there is nothing left."""
        if self._logs is not None and self._logs[0].poll() is None:
            if last:
                self._logs[0].wait(30)
            return
        if last and self._logs is not None:
            return
        selector = f"--selector={_LABELS}jobset-name={self.name}"
        lines = "--tail=-1" if self._heard == 0 else "--tail=10"  # after a broken connection the last lines come again
        many = manifest.nodes(self.cluster) * self.cluster.slices + 1
        words = kubectl(self.cluster, "logs", "--follow", "--prefix", selector, lines, f"--max-log-requests={many}", "--ignore-errors")
        child = children.start(words, os.environ)
        reader = threading.Thread(target=self._relay, args=(child.stdout,), daemon=True)
        reader.start()
        self._logs = (child, reader)
        if last:
            reader.join(30)

    def _relay(self, stream) -> None:
        with stream:
            for line in stream:
                if text := line.rstrip():
                    self._heard += 1
                    self.say(text)

    def _hush(self) -> None:
        if self._logs is not None:
            child, reader = self._logs
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(5)
            child.kill()
            child.wait()
            reader.join(5)

    def _pause(self) -> None:
        with contextlib.suppress(calls.Halted):
            calls.pause(self.cluster.poll_seconds, self.stop, hurried=True)

    def _call(self, *words: str, given: str = "", seconds: float = 120.0) -> calls.Answer:
        return calls.call(kubectl(self.cluster, *words), _CURE, given=given, seconds=seconds)


def _over(found: Mapping[str, Any]) -> str | None:
    conditions = found.get("status", {}).get("conditions", [])
    return next((one["type"] for one in conditions if one["type"] in ("Completed", "Failed") and one["status"] == "True"), None)
