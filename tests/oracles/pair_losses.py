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


def _choose(z, found, scale, related, own, positives, log_weight, share):
    if positives == "exclude":
        found = [(j, c) for j, c in found if j == own or not related(j)]
    logits = [(j, scale * _dot(z, c) + (0 if j is None else log_weight[j])) for j, c in found]
    denominator = _log_sum_exp([v for _, v in logits])
    log_probabilities = {j: v - denominator for j, v in logits if j is not None}
    if positives == "teacher":
        return -sum(share(j, list(log_probabilities)) * v for j, v in log_probabilities.items())
    targets = [v for j, v in log_probabilities.items() if j == own or (related(j) and positives != "exclude")]
    return -_log_sum_exp(targets) if positives == "sum" else -sum(targets) / len(targets)


def infonce(
    zq, zp, logit_scale, id=None, alias=None, zn=None, weight=None, zp_weight=None, zq_teacher=None, zp_teacher=None,
    *, symmetric=True, positives="mean", negatives="all", teacher_scale=50.0,
):  # fmt: skip
    weight = np.ones(len(zq)) if weight is None else weight
    log_weight = np.zeros(len(zp)) if zp_weight is None else [math.log(w) for w in zp_weight]
    scale, values = float(logit_scale), np.zeros(len(zq))
    for i in range(len(zq)):
        if weight[i] == 0:
            continue

        def related(j, i=i):
            return _related(i, j, len(zq), id, alias)

        def passage_share(j, among, i=i):
            taught = {k: teacher_scale * _dot(zq_teacher[i], zp_teacher[k]) for k in among}
            return math.exp(taught[j] - _log_sum_exp(list(taught.values())))

        def query_share(j, among, i=i):
            taught = {k: teacher_scale * _dot(zq_teacher[k], zp_teacher[i]) for k in among}
            return math.exp(taught[j] - _log_sum_exp(list(taught.values())))

        found = _candidates(zq, zp, zn, weight, negatives, i)
        values[i] = _choose(zq[i], found, scale, related, i, positives, log_weight, passage_share)
        if symmetric:
            found = _candidates(zq, zp, zn, weight, negatives, i, backwards=True)
            values[i] = (values[i] + _choose(zp[i], found, scale, related, i, positives, np.zeros(len(zq)), query_share)) / 2
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


def gist(
    zq, zp, zq_guide, zp_guide, logit_scale, id=None, alias=None, zn=None, zn_guide=None, weight=None,
    *, also=("query_query", "passage_passage"), margin=0.0, margin_kind="absolute", negatives="all",
):  # fmt: skip
    """Values, and how many candidates the guide drops of how many."""
    weight = np.ones(len(zq)) if weight is None else weight
    scale, values, queries, dropped, offered = float(logit_scale), np.zeros(len(zq)), len(zq), 0, 0
    for i in range(queries):
        if weight[i] == 0:
            continue
        own = _dot(zq_guide[i], zp_guide[i])
        threshold = own - (margin if margin_kind == "absolute" else abs(own) * margin)
        # (what it is, its cosine for the student, for the guide); neither padding nor what shares a label with row i.
        others = [j for j in range(len(zp)) if (j >= queries or weight[j] != 0) and not _related(i, j, queries, id, alias)]
        found = [(_dot(zq[i], zp[j]), _dot(zq_guide[i], zp_guide[j])) for j in others]
        if "query_query" in also:
            found += [(_dot(zq[i], zq[j]), _dot(zq_guide[i], zq_guide[j])) for j in others if j < queries]
        if "passage_passage" in also:
            found += [(_dot(zp[i], zp[j]), _dot(zp_guide[i], zp_guide[j])) for j in others]
        if zn is not None:
            owners = [i] if negatives == "own" else [j for j in range(queries) if weight[j] != 0]
            found += [(_dot(zq[i], zn[j][k]), _dot(zq_guide[i], zn_guide[j][k])) for j in owners for k in range(len(zn[j]))]
        kept = [scale * student for student, guide in found if not guide > threshold]
        target = scale * _dot(zq[i], zp[i])
        values[i] = _log_sum_exp([target, *kept]) - target
        dropped, offered = dropped + len(found) - len(kept), offered + len(found)
    return values, (dropped, offered)
