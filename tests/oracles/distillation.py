"""Distillation losses by definition: float64 loops over rows, one `math` call at a time."""

import math


def score_distill(score, teacher, label, share, temperature):
    values = []
    for s, t, y in zip(score, teacher, label, strict=True):
        t = [t[1] - t[0]] if len(s) == 1 and len(t) == 2 else t
        distance = sum((a - b / temperature) ** 2 for a, b in zip(s, t, strict=True))
        logits = [0.0, s[0]] if len(s) == 1 else s
        cross_entropy = math.log(sum(math.exp(v) for v in logits)) - logits[int(y)]
        values.append((1 - share) * cross_entropy + share * distance)
    return values


def rank_distill(cosines, teacher, kind, scale, temperature):
    """`cosines` and `teacher` [B 1 + K], the own passage first."""
    values = []
    for student, goal in zip(cosines, teacher, strict=True):
        if kind == "margin":
            gaps = [scale * (student[0] - n) - (goal[0] - m) / temperature for n, m in zip(student[1:], goal[1:], strict=True)]
            values.append(sum(gap**2 for gap in gaps) / len(gaps))
        else:
            p, q = ([math.exp(v) for v in row] for row in (goal / temperature, [scale * c for c in student]))
            p, q = ([v / sum(row) for v in row] for row in (p, q))
            values.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    return values
