"""Random batches for the tests of the losses."""

import inspect

import numpy as np

OPTIONAL = ("id", "alias", "zn", "weight", "zp_weight")


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def batch(seed=0, queries=8, passages=None, width=6, hard=2, classes=4, padded=2, dtype=np.float32):
    """Every array that a loss over pairs may ask for, by parameter name; the last `padded` rows are padding."""
    rng = np.random.default_rng(seed)
    weight = rng.uniform(0.5, 2.0, queries)
    weight[queries - padded :] = 0
    arrays = {
        "zq": unit(rng.normal(size=(queries, width))),
        "zp": unit(rng.normal(size=(passages or queries, width))),
        "zn": unit(rng.normal(size=(queries, hard, width))),
        "logit_scale": np.array(rng.uniform(1, 12)),
        "logit_bias": np.array(rng.uniform(-4, 0)),
        "weight": weight,
        "zp_weight": rng.uniform(0.2, 2.0, passages or queries),
        "zq_teacher": unit(rng.normal(size=(queries, width + 1))),
        "zp_teacher": unit(rng.normal(size=(passages or queries, width + 1))),
        "zq_guide": unit(rng.normal(size=(queries, width + 2))),
        "zp_guide": unit(rng.normal(size=(passages or queries, width + 2))),
        "zn_guide": unit(rng.normal(size=(queries, hard, width + 2))),
    }
    arrays = {name: value.astype(dtype) for name, value in arrays.items()}
    return arrays | {
        "id": rng.integers(0, classes, queries).astype(np.int32),
        "alias": rng.integers(0, 2 * classes, queries).astype(np.int32),
        "teacher": rng.normal(size=(queries, 1 + hard)).astype(dtype),
    }


def inputs(loss, arrays, without=(), teacher=False):
    """Those of `arrays` that are parameters of `loss`; a queue, a key and shares of mixtures are left to tests of their own."""
    without = without if teacher else (*without, "zq_teacher", "zp_teacher")
    names = [p.name for p in inspect.signature(loss).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    return {name: arrays[name] for name in names if name in arrays and name not in without}


def trainable(arrays):
    """Names of the arrays that have gradients."""
    return [name for name in arrays if name in ("zq", "zp", "zn", "logit_scale", "logit_bias")]
