"""InfoNCE and the sigmoid loss by definition: float64 loops over pairs, one `math` call at a time."""

import math

import numpy as np


def _dot(a, b):
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def _candidates(zq, zp, zn, weight, negatives, i, backwards=False):
    """(index or None, embedding) of everything that row i chooses from."""
    rows = range(len(zq)) if backwards else range(len(zp))
    side = zq if backwards else zp
    found = [(j, side[j]) for j in rows if j >= len(zq) or weight[j] != 0]
    if zn is not None and not backwards:
        owners = [i] if negatives == "own" else [j for j in range(len(zq)) if weight[j] != 0]
        found += [(None, z) for j in owners for z in zn[j]]
    return found


def _related(i, j, queries, id, alias):
    if j is None or j >= queries:
        return False
    return i == j or any(label is not None and label[i] == label[j] for label in (id, alias))


def _log_sum_exp(values):
    top = max(values)
    return top + math.log(sum(math.exp(v - top) for v in values))


def _choose(z, found, scale, related, own, positives):
    if positives == "exclude":
        found = [(j, c) for j, c in found if j == own or not related(j)]
        targets = [j for j, _ in found if j == own]
    else:
        targets = [j for j, _ in found if j is not None and related(j)]
    logits = [(j, scale * _dot(z, c)) for j, c in found]
    denominator = _log_sum_exp([v for _, v in logits])
    log_probabilities = [v - denominator for j, v in logits if j is not None and j in targets]
    if positives == "sum":
        return -_log_sum_exp(log_probabilities)
    return -sum(log_probabilities) / len(log_probabilities)


def infonce(zq, zp, logit_scale, id=None, alias=None, zn=None, weight=None, *, symmetric=True, positives="mean", negatives="all"):
    weight = np.ones(len(zq)) if weight is None else weight
    scale, values = float(logit_scale), np.zeros(len(zq))
    for i in range(len(zq)):
        if weight[i] == 0:
            continue

        def related(j, i=i):
            return _related(i, j, len(zq), id, alias)

        values[i] = _choose(zq[i], _candidates(zq, zp, zn, weight, negatives, i), scale, related, i, positives)
        if symmetric:
            back = _choose(zp[i], _candidates(zq, zp, zn, weight, negatives, i, backwards=True), scale, related, i, positives)
            values[i] = (values[i] + back) / 2
    return values


def sigmoid(zq, zp, logit_scale, logit_bias, id=None, alias=None, zn=None, weight=None, *, negatives="all"):
    weight = np.ones(len(zq)) if weight is None else weight
    values = np.zeros(len(zq))
    for i in range(len(zq)):
        if weight[i] == 0:
            continue
        for j, c in _candidates(zq, zp, zn, weight, negatives, i):
            z = float(logit_scale) * _dot(zq[i], c) + float(logit_bias)
            y = 1 if _related(i, j, len(zq), id, alias) else -1
            values[i] += max(-y * z, 0) + math.log1p(math.exp(-abs(z)))
    return values
