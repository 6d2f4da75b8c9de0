"""Trains on Google Kubernetes Engine: writes a JobSet for a TPU or GPU node pool, applies it with kubectl, and listens.

    python -m launch.gke --cluster=configs/clusters/gke_tpu.py:image=IMAGE --config=configs/glyphs.py --workdir=gs://BUCKET/runs/glyphs
    python -m launch.gke --cluster=configs/clusters/gke_gpu.py:image=IMAGE --config=configs/glyphs.py --workdir=gs://BUCKET/a --dry_run
    python -m launch.gke --cluster=configs/clusters/gke_tpu.py:image=IMAGE --workdir=gs://BUCKET/runs/glyphs --action=delete

The JobSet starts itself again after a crash or a preemption, whether this command listens or not. Ctrl-C: the processes save and leave,
and the JobSet is deleted; the same command goes on later. Codes are those of `launch.train`.
"""

import sys

from absl import flags
from ml_collections import config_flags

from launch import children, clusters, process
from launch.gke import job

_CLUSTER = flags.DEFINE_string("cluster", None, "path of a cluster file, with its argument after a colon")
_CONFIG = config_flags.DEFINE_config_file("config", None, "path of a config, with its argument after a colon", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run, at gs:// or on a volume")
_CHANGE = flags.DEFINE_bool("allow_config_change", False, "go on in a workdir that another config made")
_EVAL = flags.DEFINE_enum("eval", "job", job.EVALS, "job: beside training, on a node without an accelerator")
_ACTION = flags.DEFINE_enum("action", "run", ["run", "status", "delete"], "what to do with the run")
_DRY = flags.DEFINE_bool("dry_run", False, "print the JobSet, and apply nothing")

OWN = ("cluster", "eval", "action", "dry_run", "nodry_run")


def main(arguments) -> None:
    process.log_to_stderr("[launcher] ")
    with process.exit_codes():
        cluster = clusters.load(_CLUSTER.value, "gke", job.DEFAULTS)
        whole = _WORKDIR.value is not None and (_CONFIG.value is not None or _ACTION.value != "run")
        words, evaluation = clusters.command(arguments[1:], OWN, _EVAL.value, whole)
        if _DRY.value:
            print(job.written(cluster, words, evaluation), end="")
            return
        with children.Stop() as stop:
            one = job.Run(cluster, job.made(cluster, words, {}, evaluation, cluster.restarts), stop)
            if _ACTION.value == "delete":
                one.delete()
            elif _ACTION.value == "status":
                print(one.status())
            code = one.run() if _ACTION.value == "run" else process.DONE
    sys.exit(code)


if __name__ == "__main__":
    flags.mark_flags_as_required(["cluster"])
    process.run(main)
