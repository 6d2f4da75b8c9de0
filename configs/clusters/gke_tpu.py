"""TPU node pools of GKE: slices of 4 x 4 chips of v5e, on four nodes each.

    python -m launch.gke --cluster=configs/clusters/gke_tpu.py:image=IMAGE --config=configs/glyphs.py --workdir=gs://BUCKET/runs/glyphs

`launch/gke/manifest.py:DEFAULTS` lists every field.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    arg = common.parse_arg(arg, image="", topology="4x4", slices=1, bucket="", spot=True)
    cluster = ConfigDict()
    cluster.platform = "gke"
    cluster.image = arg.image
    cluster.device = "tpu"
    cluster.accelerator = "tpu-v5-lite-podslice"
    cluster.topology = arg.topology
    cluster.per_node = 4
    cluster.slices = arg.slices
    cluster.spot = arg.spot
    # A process that starts again compiles nothing that an earlier one compiled.
    cluster.variables = dict(JAX_COMPILATION_CACHE_DIR=f"gs://{arg.bucket}/compiled") if arg.bucket else {}
    return cluster.lock()
