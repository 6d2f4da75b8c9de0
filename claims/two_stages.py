"""What claims about pretraining share: a tower learns an objective on single texts, and from there from one documented function in ten."""

from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from configs import common, pretrain_text

PAIRS = "_pairs"  # ends the name of a second stage
ROWS, STEPS, QUICK_STEPS = 128, 60, 20  # of a second stage


def runs(objectives: Sequence[str]) -> tuple[str, ...]:
    """Both stages of each objective."""
    return (*objectives, *first(objectives))


def first(objectives: Sequence[str]) -> dict[str, str]:
    """Which run each second stage starts from."""
    return {objective + PAIRS: objective for objective in objectives}


def get_config(arg: str, *, rows: Mapping[str, int], steps: int) -> ConfigDict:
    """Of one run: an objective, or its second stage, which starts from the run in `first`.

    Args:
        arg: of the claim's `get_config`.
        rows: of a batch, by objective.
        steps: of the first stage.
    """
    arg = common.parse_arg(arg, run=next(iter(rows)), first="", quick=False)
    second, objective = arg.run.endswith(PAIRS), arg.run.removesuffix(PAIRS)
    stage = f"contrast,first={arg.first}" if second else f"pretrain,objective={objective}"
    config = pretrain_text.get_config(stage).unlock()
    config.data.global_batch = ROWS if second else rows[objective]
    config.evals = {}
    config.train.steps = (QUICK_STEPS if arg.quick else STEPS) if second else (30 if arg.quick else steps)
    config.checkpoint.every_steps = config.train.steps
    config.checkpoint.keep_last = 1
    if second and not arg.first:  # nothing to start from: the file is only looked at
        config.model.towers.text.init.path = f"runs/{objective}"
    return config.lock()
