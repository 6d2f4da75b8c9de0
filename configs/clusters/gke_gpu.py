"""GPU node pools of GKE: two nodes with eight H100 each.

    python -m launch.gke --cluster=configs/clusters/gke_gpu.py:image=IMAGE --config=configs/glyphs.py --workdir=gs://BUCKET/runs/glyphs

`launch/gke/manifest.py:DEFAULTS` lists every field.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    arg = common.parse_arg(arg, image="", nodes=2, accelerator="nvidia-h100-80gb", per_node=8, spot=False)
    cluster = ConfigDict()
    cluster.platform = "gke"
    cluster.image = arg.image
    cluster.device = "gpu"
    cluster.accelerator = arg.accelerator
    cluster.per_node = arg.per_node
    cluster.nodes = arg.nodes
    cluster.spot = arg.spot
    return cluster.lock()
