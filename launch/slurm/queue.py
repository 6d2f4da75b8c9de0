"""What this program says to SLURM: submit, look, signal. One look serves all jobs of a program, every few seconds."""

import os
import subprocess
import time
from collections.abc import Sequence

from core.config import ConfigError
from launch import process

# Variables of a job from within which somebody submits another, or of the shell, that would speak for the new one.
_FOREIGN = ("SLURM_", "SBATCH_", "SRUN_")
_OWN = ("CUDA_VISIBLE_DEVICES", process.COORDINATOR, "TANDEM_PROCESSES", "TANDEM_PROCESS")
_KEPT = ("SLURM_CONF",)


def submit(script: os.PathLike, options: Sequence[str] = ()) -> str:
    """Hands a script to SLURM; the job's number.

    Raises:
        ConfigError: SLURM is not here, or refuses, with its words.
    """
    return _ask("sbatch", "--parsable", *options, str(script)).strip().partition(";")[0]


def cancel(job: str) -> None:
    """Ends a job at once."""
    _tell("scancel", "--signal=KILL", "--full", job)
    _tell("scancel", job)


def stop(*jobs: str) -> None:
    """Lets jobs save and leave, for good; those that wait are taken back."""
    _tell("scontrol", "update", f"JobId={','.join(jobs)}", "Requeue=0")
    _tell("scancel", "--state=PENDING", *jobs)
    _tell("scancel", "--state=RUNNING", "--batch", "--signal=TERM", *jobs)


class Queue:
    """Jobs of this user that wait, run or end just now, N, and N_I of arrays; looked at anew once an answer is `seconds` old."""

    def __init__(self, seconds: float):
        self._seconds, self._at, self._jobs = seconds, -float("inf"), frozenset()

    def holds(self, job: str) -> bool:
        """Whether a job has not ended yet; as far as is known, where the controller does not answer."""
        if time.monotonic() - self._at > self._seconds:
            self._at = time.monotonic()
            try:
                self._jobs = frozenset(_ask("squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i").split())
            except ConfigError as error:
                process.log.warning("%s", error)
        return job in self._jobs

    def add(self, *jobs: str) -> None:
        """Counts jobs that were just submitted among those that wait."""
        self._jobs |= set(jobs)


def _ask(*words: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name in _KEPT or not name.startswith(_FOREIGN) and name not in _OWN}
    try:
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
    except FileNotFoundError:
        raise ConfigError(f"{words[0]} is not on this machine; run this where SLURM's commands are, such as a login node.") from None
    if done.returncode:
        raise ConfigError(f"{words[0]} refused: {' '.join(done.stderr.split())}")
    return done.stdout


def _tell(*words: str) -> None:
    """A word to a job, which may have ended meanwhile."""
    try:
        _ask(*words)
    except ConfigError as error:
        process.log.info("%s", error)
