"""A slice of Cloud TPU: 16 chips of v5e on four workers, at the price of spot capacity.

    python -m launch.tpu --cluster=configs/clusters/tpu.py:project=PROJECT --config=configs/glyphs.py --workdir=gs://BUCKET/runs/glyphs

`launch/tpu/commands.py:DEFAULTS` lists every field.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    arg = common.parse_arg(arg, project="", zone="us-west4-a", accelerator_type="v5litepod-16", bucket="", spot=True)
    cluster = ConfigDict()
    cluster.platform = "tpu"
    cluster.project = arg.project
    cluster.zone = arg.zone
    cluster.accelerator_type = arg.accelerator_type
    cluster.runtime_version = "v2-alpha-tpuv5-lite"  # of v5e; others need theirs
    cluster.spot = arg.spot
    cluster.labels = dict(made_by="tandem")
    # A new worker then compiles nothing that an earlier one compiled.
    cluster.variables = dict(JAX_COMPILATION_CACHE_DIR=f"gs://{arg.bucket}/compiled") if arg.bucket else {}
    cluster.eval = dict(accelerator_type="v5litepod-1")
    return cluster.lock()
