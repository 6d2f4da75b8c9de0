"""The training objective on pairs the model never saw, in batches that are the same for every checkpoint."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evals import metrics
from evals.evaluation import Evaluation


def held_out_loss(encode, data, *, batch: int = 256, batches: int = 0, seed: int = 0) -> Evaluation:
    """Mean loss in nats over disjoint batches of the source's records, with the model's own logit scale.

    Args:
        encode: functions by view, with three attributes beside: `logit_scale` (float), `logit_bias` (float or None) and
            `losses`, a list of (label, weight, function from the arrays of a batch to its mean loss). The arrays are
            `z_<view>`, the records' integers by name, `logit_scale` and, where there is one, `logit_bias`.
        data: a source; its records hold raw values of the views.
        batch: pairs in a batch. The loss depends on it (for InfoNCE chance is ln batch), so it is reported beside it.
        batches: how many to take; 0 takes all full ones. A ragged rest is left out: its loss is another quantity.
        seed: of the shuffle that fills the batches.

    Returns:
        `loss` (primary, the weighted sum), `loss/<label>` of each entry, `logit_scale` and `count/batch`.

    Raises:
        ValueError: fewer pairs than a batch needs, or embeddings that are not finite.
    """
    wanted = batches or len(data) // batch
    if not wanted or wanted * batch > len(data):
        raise ValueError(
            f"{len(data)} pairs do not fill {max(wanted, 1)} batches of {batch}; "
            f"set config.evals.<label>.options.batch to {max(len(data) // max(wanted, 1), 1)} or less."
        )
    order = np.random.default_rng(seed).permutation(len(data))[: wanted * batch].reshape(wanted, batch)
    rows = [_losses(encode, [data[int(index)] for index in some]) for some in order]
    values = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    values |= {"logit_scale": float(encode.logit_scale), "count/batch": float(batch)}
    return Evaluation("loss", values, order.size, items=np.array([row["loss"] for row in rows]))  # of each batch


def _losses(encode, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    integers = [name for name, value in records[0].items() if isinstance(value, (int, np.integer))]
    arrays: dict[str, Any] = {name: np.array([record[name] for record in records], np.int32) for name in integers}
    for view in encode:
        if view in records[0]:
            arrays[f"z_{view}"] = metrics.check_rows(encode[view]([record[view] for record in records]), f"{view} embeddings")
    arrays["logit_scale"] = np.float32(encode.logit_scale)
    if encode.logit_bias is not None:
        arrays["logit_bias"] = np.float32(encode.logit_bias)
    values = {f"loss/{label}": (weight, float(loss(arrays))) for label, weight, loss in encode.losses}
    return {"loss": sum(weight * value for weight, value in values.values())} | {name: value for name, (_, value) in values.items()}
