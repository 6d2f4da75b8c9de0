"""Losses over mixed embeddings by definition: float64 loops over rows, mixtures formed one by one."""

import math

import numpy as np


def _log_sum_exp(values):
    top = max(values)
    return top + math.log(sum(math.exp(v - top) for v in values))


def _unit(x):
    return x / np.linalg.norm(x)


def mochi(zq, zp, logit_scale, lists, draws, hardest):
    """`lists[i]` are the negatives of query i, in the order of the loss's table; `draws` its uniform numbers, or None."""
    values = np.zeros(len(zq))
    for i, q in enumerate(zq):
        cosines = [float(q @ n) for n in lists[i]]
        chosen = [lists[i][j] for j in sorted(range(len(cosines)), key=lambda j: -cosines[j])[:hardest]]
        for h in mixtures(q, chosen, i, draws):
            cosines.append(float(q @ h))
        own = float(q @ zp[i])
        values[i] = _log_sum_exp([logit_scale * c for c in (own, *cosines)]) - logit_scale * own
    return values


def mixtures(q, chosen, i, draws):
    """Those of one query: of two negatives that differ, then of one and the query."""
    made, count = [], len(chosen)
    if draws is None or not count:
        return made
    for one, other, share in zip(draws.first[i], draws.second[i], draws.share[i], strict=True) if count > 1 else ():
        first = int(one * count)
        second = (first + 1 + int(other * (count - 1))) % count
        made.append(_unit(share * chosen[first] + (1 - share) * chosen[second]))
    for one, share in zip(draws.one[i], draws.of_query[i], strict=True):
        made.append(_unit(share / 2 * q + (1 - share / 2) * chosen[int(one * count)]))
    return made


def simclr(zq, zp, logit_scale, weighted):
    """Both anchors of each pair against all other embeddings."""
    rows, count = [*zq, *zp], len(zq)
    values = []
    for i, anchor in enumerate(rows):
        mate = (i + count) % (2 * count)
        s = [logit_scale * float(anchor @ other) for k, other in enumerate(rows) if k not in (i, mate)]
        values.append(_softmax_loss(logit_scale * float(anchor @ rows[mate]), s, weighted))
    return [(values[i] + values[i + count]) / 2 for i in range(count)]


def mi_mix(zq, zp, logit_scale, share, partner, weighted, labels=(), weight=None):
    """A passage competes unless it is the row's own, padding, or of one of its labels; the partner's does whatever its labels."""
    values, there = [], lambda k: weight is None or k >= len(zq) or weight[k] != 0
    alike = lambda i, k: k < len(zq) and any(label[i] == label[k] for label in labels)
    for i, q in enumerate(zq):
        if not there(i) or not there(partner[i]):
            values.append(0.0)
            continue
        s = [logit_scale * float(q @ p) for p in zp]
        rest = _negatives([s[k] for k in range(len(zp)) if k != i and there(k) and (k == partner[i] or not alike(i, k))], weighted)
        log_p = [v - math.log(rest + math.exp(s[i])) for v in s]
        values.append(-share[i] * log_p[i] - (1 - share[i]) * log_p[partner[i]])
    return values


def _negatives(s, weighted):
    mean = sum(math.exp(v) for v in s) / len(s)
    return sum((math.exp(v) / mean if weighted else 1) * math.exp(v) for v in s)


def _softmax_loss(own, s, weighted):
    return -math.log(math.exp(own) / (math.exp(own) + _negatives(s, weighted)))


def m2_mix(zq, zp, share, temperature):
    mixed = []
    for u, v in zip(zq, zp, strict=True):
        angle = math.acos(float(u @ v))
        mixed.append((math.sin(share * angle) * u + math.sin((1 - share) * angle) * v) / math.sin(angle))
    values = []
    for i, (u, v) in enumerate(zip(zq, zp, strict=True)):
        total = 0.0
        for side in (u, v):
            logits = [float(side @ m) / temperature for m in mixed]
            logits[i] = float(u @ v) / temperature
            total += _log_sum_exp(logits) - logits[i]
        values.append(total)
    return values
