"""A benchmark of MTEB, run by MTEB itself: needs the network for its data, and `pip install 'mteb>=2.26,<3'` (it brings torch).

    python -m launch.evaluate --suite=configs/suites/mteb.py:STS12+STS13 --model=downloads/all-MiniLM-L6-v2

Takes `benchmark=NAME`, for example `benchmark=MTEB(eng. v2)` with a point for the comma, or names of tasks with a plus between them.
Sources, licences and protocols of the tasks are those that MTEB states. Scores have no intervals: MTEB keeps no score of an item.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    arg = common.parse_arg(arg, tasks="STSBenchmark+SciFact+Banking77Classification", benchmark="")
    config = ConfigDict()
    config.name = "mteb"
    config.bootstrap = dict(number=2000, seed=0, level=0.95)
    config.references = ()
    config.mteb = dict(benchmark=arg.benchmark.replace(". ", ", "), tasks=() if arg.benchmark else tuple(arg.tasks.split("+")), batch=32)
    config.tasks = {}
    return config.lock()
