"""A SLURM cluster: nodes of eight GPUs, one process on each.

    python -m launch.slurm --cluster=configs/clusters/slurm.py:nodes=2 --config=configs/glyphs.py --workdir=runs/glyphs

`launch/slurm/script.py:DEFAULTS` lists every field.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    arg = common.parse_arg(arg, nodes=1, gpus=8, time="1-00:00:00", partition="", account="")
    cluster = ConfigDict()
    cluster.platform = "slurm"
    cluster.time = arg.time
    cluster.partition = arg.partition
    cluster.account = arg.account
    cluster.nodes = arg.nodes
    cluster.gpus_per_node = arg.gpus
    cluster.cpus_per_task = 64 if arg.gpus else 8
    cluster.eval = dict(gpus=1 if arg.gpus else 0, cpus=8)
    return cluster.lock()
