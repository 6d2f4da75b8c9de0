"""What claims about pretraining share: a tower learns an objective on single texts, and from there from some documented functions."""

from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from configs import common, pretrain_text

PART = "_1in"  # in the name of a second stage, before the number of functions of which it has one
QUICK_ROWS, QUICK_STEPS = 16, 5


def first(objectives: Sequence[str], every: Sequence[int] = (10,)) -> dict[str, str]:
    """Which run each second stage starts from; it is named after that run and the number of functions of which it has one."""
    return {f"{objective}{PART}{count}": objective for objective in objectives for count in every}


def get_config(arg: str, *, rows: Mapping[str, int], steps: int, second: tuple[int, int]) -> ConfigDict:
    """Of one run: an objective, or its second stage, which starts from the run in `first`.

    Args:
        arg: of the claim's `get_config`.
        rows: of a batch of the first stage, by its name: the objective, and what else it is called after a `_`.
        steps: of the first stage.
        second: rows and steps of the second stage.
    """
    arg = common.parse_arg(arg, run=next(iter(rows)), first="", quick=False)
    start, tuned, every = arg.run.partition(PART)
    objective = start.split("_")[0]
    stage = f"contrast,first={arg.first},every={every}" if tuned else f"pretrain,objective={objective}"
    config = pretrain_text.get_config(stage).unlock()
    config.evals = {}
    config.data.global_batch, config.train.steps = second if tuned else (rows[start], steps)
    if arg.quick:
        config.data.global_batch, config.train.steps = QUICK_ROWS, QUICK_STEPS
    config.checkpoint.every_steps = config.train.steps
    config.checkpoint.keep_last = 1
    if tuned and not arg.first:  # nothing to start from: the file is only looked at
        config.model.towers.text.init.path = f"runs/{start}"
    return config.lock()
