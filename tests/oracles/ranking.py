"""Naive float64 loops for ranks, recalls and classification, written from the definitions alone."""

import itertools
import math


def dot(a, b):
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def ranks(queries, candidates, relevant):
    """(reference, pessimistic) rank of every query, counted from 0."""
    out = []
    for q, query in enumerate(queries):
        own = {c for p, c in relevant if p == q}
        best = max(dot(query, candidates[c]) for c in own)
        others = [dot(query, candidate) for c, candidate in enumerate(candidates) if c not in own]
        out.append((sum(score > best for score in others), sum(score >= best for score in others)))
    return [r for r, _ in out], [p for _, p in out]


def hit_by_sorting(query, candidates, own, k):
    """Whether a relevant candidate is among the first k of a sorted list (no ties)."""
    order = sorted(range(len(candidates)), key=lambda c: -dot(query, candidates[c]))
    return any(c in own for c in order[:k])


def chance_by_listing(own, candidates, k):
    """Share of all k-subsets of the candidates that hold one of `own` relevant ones (numbered 0 to own - 1)."""
    subsets = list(itertools.combinations(range(candidates), min(k, candidates)))
    return sum(any(c < own for c in subset) for subset in subsets) / len(subsets)


def median(values):
    values = sorted(values)
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


def class_weight(prompts):
    """Unit row of one class from its prompts' embeddings."""
    units = [normalised(prompt) for prompt in prompts]
    return normalised([sum(column) / len(units) for column in zip(*units, strict=True)])


def normalised(row):
    length = math.sqrt(sum(float(x) ** 2 for x in row))
    return [float(x) / length for x in row]


def accuracy(similarity, labels, k):
    """Share of rows whose label is among the k highest; equal values in the order of their index."""
    hits = 0
    for row, label in zip(similarity, labels, strict=True):
        hits += label in sorted(range(len(row)), key=lambda c: (-row[c], c))[:k]
    return hits / len(labels)


def mean_per_class_recall(similarity, labels):
    recalls = []
    for label in sorted(set(labels)):
        rows = [i for i, other in enumerate(labels) if other == label]
        recalls.append(accuracy([similarity[i] for i in rows], [label] * len(rows), 1))
    return sum(recalls) / len(recalls)


def cross_entropy(similarity, labels, scale=100.0):
    total = 0.0
    for row, label in zip(similarity, labels, strict=True):
        total -= scale * row[label] - math.log(sum(math.exp(scale * value) for value in row))
    return total / len(labels)


def ordered(scores, names, relevant=None):
    """Candidates from best to worst: by score, then the later name as bytes; with `relevant` {candidate: grade}, ties go against it."""
    gain = lambda c: 0 if relevant is None else max(relevant.get(c, 0), 0)
    by_name = sorted(range(len(scores)), key=lambda c: names[c].encode(), reverse=True)
    return sorted(by_name, key=lambda c: (-scores[c], gain(c)))


def list_metrics(order, relevant, k, ks):
    """The metrics of one list, walking down it; `relevant` is {candidate: grade}."""
    gains = [max(relevant.get(c, 0), 0) for c in order]
    everything = sum(grade > 0 for grade in relevant.values())
    discounted = lambda some: sum(gain / math.log2(r + 2) for r, gain in enumerate(some[:k]))
    best = discounted(sorted((grade for grade in relevant.values() if grade > 0), reverse=True))
    hits, precisions = 0, 0.0
    for r, gain in enumerate(gains):
        if gain:
            hits += 1
            precisions += hits / (r + 1)
    first = next((r for r, gain in enumerate(gains) if gain), math.inf)
    out = {f"mrr@{k}": 1 / (first + 1) if first < k else 0.0, f"ndcg@{k}": discounted(gains) / best if best else 0.0}
    out["map"] = precisions / everything if everything else 0.0
    for cut in ks:
        found = sum(gain > 0 for gain in gains[:cut])
        out |= {f"recall@{cut}": found / everything if everything else 0.0, f"success@{cut}": float(found > 0)}
    return out
