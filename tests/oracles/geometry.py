"""Naive float64 loops for the geometry of embeddings, from the definitions of the papers."""

import itertools
import math


def squared_distance(a, b):
    return sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True))


def alignment(x, y, power=2):
    return sum(squared_distance(a, b) ** (power / 2) for a, b in zip(x, y, strict=True)) / len(x)


def uniformity(x, t=2):
    kernels = [math.exp(-t * squared_distance(a, b)) for a, b in itertools.combinations(x, 2)]
    return math.log(sum(kernels) / len(kernels))


def mean_cosine(x):
    products = [sum(float(p) * float(q) for p, q in zip(a, b, strict=True)) for a, b in itertools.combinations(x, 2)]
    return sum(products) / len(products)


def effective_rank(singular_values):
    total = sum(singular_values)
    shares = [s / total for s in singular_values]
    return math.exp(-sum(p * math.log(p) for p in shares if p > 0))
