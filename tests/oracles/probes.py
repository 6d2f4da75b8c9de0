"""Probes, calibration and detection by definition: loops in float64."""

import itertools
import math


def cosine(a, b):
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(float(x) ** 2 for x in a) * sum(float(y) ** 2 for y in b))


def knn_votes(train, labels, row, k, temperature):
    """Votes of the k nearest by class; equally near ones in their order."""
    found = sorted(((-cosine(row, other), i) for i, other in enumerate(train)))[:k]
    votes = {}
    for negative, i in found:
        votes[labels[i]] = votes.get(labels[i], 0.0) + math.exp(-negative / temperature)
    return votes


def uniform_winner(train, labels, row, k):
    """The most frequent class of the k nearest, and of equally frequent ones that of the greatest sum of cosines."""
    found = sorted(((-cosine(row, other), i) for i, other in enumerate(train)))[:k]
    count, total = {}, {}
    for negative, i in found:
        count[labels[i]] = count.get(labels[i], 0) + 1
        total[labels[i]] = total.get(labels[i], 0.0) - negative
    return max(count, key=lambda c: (count[c], total[c]))


def worst_case_hit(similarity, labels, own, k, vote):
    """Whether a class wins strictly whichever of the equally near rows are the last neighbours."""
    ordered = sorted(similarity, reverse=True)
    last = ordered[k - 1]
    nearer = [i for i, s in enumerate(similarity) if s > last]
    equal = [i for i, s in enumerate(similarity) if s == last]
    for some in itertools.combinations(equal, k - len(nearer)):
        votes = {}
        for i in [*nearer, *some]:
            votes[labels[i]] = votes.get(labels[i], 0.0) + vote(similarity[i])
        if any(c != own and v >= votes.get(own, 0.0) for c, v in votes.items()) or own not in votes:
            return False
    return True


def cross_entropies(rows, labels, weights, bias):
    """Of each row in nats, by linear class scores."""
    out = []
    for row, label in zip(rows, labels, strict=True):
        logits = [sum(float(w) * float(x) for w, x in zip(ws, row, strict=True)) + float(b) for ws, b in zip(weights, bias, strict=True)]
        top = max(logits)
        out.append(top + math.log(sum(math.exp(z - top) for z in logits)) - logits[label])
    return out


def ece(probability, labels, bins):
    total = 0.0
    for b in range(bins):
        low, high = b / bins, (b + 1) / bins
        rows = [i for i, row in enumerate(probability) if low < max(row) <= high]
        if rows:
            confidence = sum(max(probability[i]) for i in rows) / len(rows)
            accuracy = sum(list(probability[i]).index(max(probability[i])) == labels[i] for i in rows) / len(rows)
            total += len(rows) / len(labels) * abs(accuracy - confidence)
    return total


def auroc(inside, outside):
    return sum((a > b) + (a == b) / 2 for a in inside for b in outside) / (len(inside) * len(outside))


def fpr_at_95(positive, negative):
    """Share of negatives at the first threshold, from high to low, that 95% of the positives reach."""
    for threshold in sorted({*positive, *negative}, reverse=True):
        if sum(p >= threshold for p in positive) / len(positive) >= 0.95:
            return sum(n >= threshold for n in negative) / len(negative)
