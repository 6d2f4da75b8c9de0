"""Learning rate and loss on glyphs: four rates by InfoNCE and sigmoid, eight trials.

python -m launch.sweep --config=configs/glyphs.py --sweep=configs/sweeps/glyphs_lr_loss.py --backend=local --parallel=2 --workdir=runs/sweep

Last measured: 2026-11-21, commit 1f42d66, two busy CPU cores, 9 minutes for `--config.train.steps=100 --config.data.global_batch=128
--config.optimizer.warmup_steps=10`: unseen img2txt recall@1 by InfoNCE 0.110, 0.128, 0.143 and 0.002 from the lowest rate to the highest,
by sigmoid 0.033, 0.011, 0.004 and 0.006. A hundred steps are few: this ranks rates for short runs, not the losses.
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
