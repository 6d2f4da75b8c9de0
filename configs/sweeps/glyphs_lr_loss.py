"""Learning rate and loss on glyphs: four rates by InfoNCE and sigmoid, eight trials.

python -m launch.sweep --config=configs/glyphs.py --sweep=configs/sweeps/glyphs_lr_loss.py --backend=local --parallel=2 --workdir=runs/sweep
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    arg = common.parse_arg(arg, search="grid", prune=False)
    sweep = ConfigDict()
    sweep.objective = dict(evaluator="unseen", metric="img2txt/recall@1")
    if arg.search == "grid":
        rate = dict(values=(5e-4, 1e-3, 2e-3, 4e-3))
    else:
        rate = dict(low=3e-4, high=1e-2, log=True)
    sweep.search = dict(name=arg.search, options={} if arg.search == "grid" else dict(trials=8))
    sweep.pruner = dict(name="median" if arg.prune else "none")
    sweep.space = dict(loss=dict(key="arg.loss", values=("infonce", "sigmoid")), rate=rate | dict(key="config.optimizer.learning_rate"))
    return sweep.lock()
