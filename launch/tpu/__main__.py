"""Trains on Cloud TPU: asks for a queued resource, ships the code, runs it on all workers, listens, and gives the resource back.

    python -m launch.tpu --cluster=configs/clusters/tpu.py --config=configs/glyphs.py --workdir=gs://BUCKET/runs/glyphs [--eval=job]
    python -m launch.tpu --cluster=configs/clusters/tpu.py --workdir=gs://BUCKET/runs/glyphs --action=status
    python -m launch.tpu --cluster=configs/clusters/tpu.py -- launch.doctor --config=configs/glyphs.py --workdir=gs://BUCKET/runs/glyphs

Any other module of Tandem's and its flags may follow `--`. Ctrl-C: the workers save and leave, the resource is given back, and the same
command goes on later; a second one gives it back at once. Codes are those of `launch.train`.
"""

import os
import pathlib
import sys
import tempfile

from absl import flags
from ml_collections import config_flags

from launch import children, clusters, process
from launch.tpu import commands, job, pod, resource, ship

_CLUSTER = flags.DEFINE_string("cluster", None, "path of a cluster file, with its argument after a colon")
_CONFIG = config_flags.DEFINE_config_file("config", None, "path of a config, with its argument after a colon", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run, at gs:// or shared by the workers")
_CHANGE = flags.DEFINE_bool("allow_config_change", False, "go on in a workdir that another config made")
_EVAL = flags.DEFINE_enum(
    "eval",
    "job",
    job.EVALS,
    "job: on a small resource beside training; cpu: on worker 0's CPU; after: on a chip of worker 0, after training",
)
_ACTION = flags.DEFINE_enum("action", "run", ["run", "status", "logs", "delete"], "what to do with the run")
_RESTARTS = flags.DEFINE_integer("restarts", 3, "how often a run that crashed starts again from its last checkpoint", 0)
_KEEP = flags.DEFINE_bool("keep", False, "do not give the resource back at the end")
_DIRTY = flags.DEFINE_bool("dirty", False, "ship files that differ from the commit")
_DRY = flags.DEFINE_bool("dry_run", False, "print the commands, and start nothing")

OWN = ("cluster", "eval", "action", "restarts", "keep", "nokeep", "dirty", "nodirty", "dry_run", "nodry_run")


def main(arguments) -> None:
    from core.workdir import locked

    process.log_to_stderr("[launcher] ")
    with process.exit_codes():
        cluster = clusters.load(_CLUSTER.value, "tpu", job.DEFAULTS)
        whole = _WORKDIR.value is not None and (_CONFIG.value is not None or _ACTION.value != "run")
        words, evaluation = clusters.command(arguments[1:], OWN, _EVAL.value, whole)
        clusters.check_workdir(words, cluster.shared_folders, job.SHARED)
        if _ACTION.value != "run":
            sys.exit(act(cluster, words))
        if _DRY.value:
            print(job.rehearsal(cluster, words, evaluation, "COMMIT", keep=_KEEP.value))
            return
        shipment = pod.Shipment(job.ROOT, ship.pack(job.ROOT, dirty=_DIRTY.value))
        with locked(
            pathlib.Path(tempfile.gettempdir()) / f"tandem-tpu-{os.getuid()}", "launched", name=f"{job.name_of(cluster, words)}.lock"
        ):
            with children.Stop() as stop:
                code = job.run(cluster, words, evaluation, stop, shipment, _RESTARTS.value, _KEEP.value)
    sys.exit(code)


def act(cluster, words: list[str]) -> int:
    """Looks at what an earlier command left, listens to it, or gives it back."""
    found = [(cluster, job.name_of(cluster, words), "train")]
    if words[2] == "launch.train":
        small, name, _ = job.follower(cluster, words)
        found.append((small, name, "eval"))
    with children.Stop() as stop:
        for where, name, label in found:
            one = pod.Pod(where, name, stop)
            if _ACTION.value == "delete":
                one.delete()
                continue
            state, why = one.state()
            print(f"{name} ({label}): {state} {why}".rstrip())
            if state == resource.ACTIVE and (_ACTION.value == "status" or label == "train"):
                one.show(commands.status() if _ACTION.value == "status" else commands.listen(label))
    return process.DONE


if __name__ == "__main__":
    flags.mark_flags_as_required(["cluster"])
    process.run(main)
