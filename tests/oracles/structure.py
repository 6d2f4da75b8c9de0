"""Structure-CLIP and CLIM by definition: float64 loops over pairs, boxes and positions."""

import numpy as np


def structure_clip(
    zq, zp, zn=None, zn_weight=None, knowledge=None, id=None, alias=None, weight=None,
    *, in_batch=True, margin=0.2, swap_margin=0.1, swap_weight=5.0, knowledge_weight=0.2, early=False,
):  # fmt: skip
    queries = len(zq)
    weight = np.ones(queries) if weight is None else weight
    merged = zp if knowledge is None else [v + knowledge_weight * k for v, k in zip(zp, knowledge, strict=True)]
    dot = lambda a, b: sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    rows = [i for i in range(queries) if weight[i] != 0]
    rival = lambda i, j: i != j and not any(label is not None and label[i] == label[j] for label in (id, alias))
    values = np.zeros(queries)
    for i in rows:
        if in_batch:
            own = dot(zq[i], merged[i])
            captions = [dot(zq[i], merged[j]) for j in range(len(zp)) if j >= queries or (weight[j] != 0 and rival(i, j))]
            images = [dot(zq[j], merged[i]) for j in rows if rival(i, j)]
            if captions:
                values[i] += max(0.0, max(captions) + margin - own)
            if early:
                values[i] += max(0.0, sum(dot(zq[j], merged[i]) for j in rows) / len(rows) + margin - own)
            elif images:
                values[i] += max(0.0, max(images) + margin - own)
        if zn is not None and (zn_weight is None or zn_weight[i] != 0):
            hinges = [max(0.0, swap_margin - dot(zq[i], zp[i]) + dot(zq[i], z)) for z in zn[i]]
            values[i] += swap_weight * sum(hinges) / len(hinges)
    return values


def regions(dense, boxes):
    """CLIM's regions by definition: a loop over boxes and positions."""
    images, count, width = dense.shape
    side, found = int(count**0.5), np.zeros((*boxes.shape[:2], width))
    shared = lambda low, high, i: max(0.0, min(high, (i + 1) / side) - max(low, i / side))
    for b in range(images):
        for k, (left, top, right, bottom) in enumerate(np.asarray(boxes[b], float)):
            for y in range(side):
                for x in range(side):
                    feature = dense[b, y * side + x].astype(float)
                    area = shared(left, right, x) * shared(top, bottom, y)
                    found[b, k] += area * feature / max(np.linalg.norm(feature), 1e-12)
            found[b, k] /= max(np.linalg.norm(found[b, k]), 1e-12)
    return found
