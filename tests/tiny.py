"""A run small enough for tests: the digits config with towers of width 16."""

import jax

from configs import digits
from core import mesh as meshes
from training import loop
from training import run as runs
from training.data import open_data


def config(**changes):
    """`configs/digits.py` at toy size; `changes` are dotted keys, with `__` for the dot: `train__steps=4`."""
    made = digits.get_config("smoke")
    made.unlock()
    made.data.global_batch = 16
    made.model.towers.image.options.update(width=16, layers=1, embed_dim=16, patch_size=4)
    made.model.towers.text.options.update(width=16, layers=1, embed_dim=16)
    made.train.steps = 6
    made.checkpoint.every_steps = 2
    made.log.every_steps = 1
    made.log.tensorboard = False
    made.evals.test.every_steps = 2
    made.optimizer.warmup_steps = 2
    for key, value in changes.items():
        section = made
        *path, last = key.split("__")
        for name in path:
            section = section[name]
        section[last] = value
    return made


def prepare(made, workdir, devices=None, **mesh):
    """The run of a config on some devices (one, by default)."""
    devices = jax.devices()[:1] if devices is None else devices
    return runs.prepare(made, open_data(made, workdir), meshes.make(**(mesh or dict(data=-1)), devices=devices))


def train(made, workdir, **options):
    """Trains in this process; the outcome."""
    workdir.mkdir(parents=True, exist_ok=True)
    return loop.train(prepare(made, workdir, **options), made, workdir)
