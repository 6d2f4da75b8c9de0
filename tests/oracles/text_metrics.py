"""Correlations, precision and translation scores as their definitions read, one pair after another, in float64."""

import math


def mean_ranks(values):
    """From 1; equal values share the mean of their places."""
    ordered = sorted(values)
    return [sum(place for place, other in enumerate(ordered, 1) if other == value) / ordered.count(value) for value in values]


def pearson(a, b):
    mean_a, mean_b = math.fsum(a) / len(a), math.fsum(b) / len(b)
    cov = math.fsum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    return cov / math.sqrt(math.fsum((x - mean_a) ** 2 for x in a) * math.fsum((y - mean_b) ** 2 for y in b))


def thresholds(score, positive):
    """(precision, recall, accuracy) of calling all pairs positive that reach a score, for each score from the highest down."""
    for threshold in sorted(set(score), reverse=True):
        called = [p for s, p in zip(score, positive, strict=True) if s >= threshold]
        right = sum((s >= threshold) == p for s, p in zip(score, positive, strict=True))
        yield sum(called) / len(called), sum(called) / sum(positive), right / len(score)


def average_precision(score, positive):
    total, before = 0.0, 0.0
    for precision, recall, _ in thresholds(score, positive):
        total, before = total + (recall - before) * precision, recall
    return total


def best_f1(score, positive):
    """The last threshold, which calls everything positive, is not tried."""
    tried = list(thresholds(score, positive))[:-1]
    return max((2 * p * r / (p + r) if p + r else 0.0 for p, r, _ in tried), default=0.0)


def best_accuracy(score, positive):
    return max((accuracy for *_, accuracy in list(thresholds(score, positive))[:-1]), default=0.0)


def weighted_translation_scores(taken, gold):
    """(F1, precision, recall) of each wanted target, weighted by how often it is wanted."""
    sums = [0.0, 0.0, 0.0]
    for target in set(gold):
        hits = sum(t == g == target for t, g in zip(taken, gold, strict=True))
        precision = hits / taken.count(target) if target in taken else 0.0
        recall = hits / gold.count(target)
        f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
        sums = [total + value * gold.count(target) / len(gold) for total, value in zip(sums, (f1, precision, recall), strict=True)]
    return tuple(sums)


def v_measure(labels, clusters):
    entropy = lambda groups: -sum(n / len(labels) * math.log(n / len(labels)) for n in groups)
    sizes = lambda values: [values.count(value) for value in set(values)]
    pairs = list(zip(labels, clusters, strict=True))
    of_labels, of_clusters, joint = entropy(sizes(labels)), entropy(sizes(clusters)), entropy(sizes(pairs))
    homogeneity = (of_labels + of_clusters - joint) / of_labels if of_labels else 1.0
    completeness = (of_labels + of_clusters - joint) / of_clusters if of_clusters else 1.0
    return 2 * homogeneity * completeness / (homogeneity + completeness) if homogeneity + completeness else 0.0
