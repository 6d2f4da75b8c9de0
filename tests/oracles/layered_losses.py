"""Losses over layers and widths by definition: float64 loops over rows, one `math` call at a time."""

import math

import numpy as np


def unit(x):
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax(values):
    top = max(values)
    exponentials = [math.exp(v - top) for v in values]
    return [e / sum(exponentials) for e in exponentials]


def kl(teacher, student):
    return sum(p * (math.log(p) - math.log(q)) for p, q in zip(softmax(teacher), softmax(student), strict=True))


def _at(base, layers, layer, dim, **given):
    """The base loss of each query on prefixes of a layer (1 is the first)."""
    return np.array(base(**{name: unit(unit(z[layer - 1])[..., :dim]) for name, z in layers.items()}, **given))


def _features(layers, layer, dim, temperature):
    """Mean divergence of a query's own vectors from the last layer's."""
    found = []
    for i in range(len(layers["zq"][0])):
        own = [(layers[side][-1][i], layers[side][layer - 1][i]) for side in ("zq", "zp")]
        if "zn" in layers:
            own += list(zip(layers["zn"][-1][i], layers["zn"][layer - 1][i], strict=True))
        found.append(np.mean([kl(t[:dim] / temperature, s[:dim] / temperature) for t, s in own]))
    return np.array(found)


def matryoshka_2d(base, layers, used, widths, *, layer_weight, kl_weight, temperature, weight, **given):
    """`used` are the inner layers (from 1), `widths` what is summed over; weights are functions of the layer."""
    depth, over = len(layers["zq"]), lambda layer: sum(_at(base, layers, layer, dim, weight=weight, **given) for dim in widths)
    value = over(depth)
    for n in used:
        value = value + layer_weight(n) / len(used) * over(n)
        value = value + temperature * kl_weight(n) * _features(layers, n, None, temperature) * (weight != 0)
    return value


def starbucks(base, layers, sizes, *, kind, kl_weight, logit_scale, weight, **given):
    whole, total = (len(layers["zq"]), layers["zq"].shape[-1]), 0.0
    for layer, dim in sizes:
        total = total + _at(base, layers, layer, dim, weight=weight, logit_scale=logit_scale, **given)
        if (layer, dim) != whole:
            apart = _features(layers, layer, dim, 1.0) if kind == "features" else _scores(layers, layer, dim, logit_scale, weight)
            total = total + kl_weight * apart * (weight != 0)
    return total


def _scores(layers, layer, dim, logit_scale, weight):
    def scores(z, i):
        passages = [z["zp"][j] for j in range(len(z["zp"])) if j >= len(weight) or weight[j] != 0]
        hard = [n for j in range(len(weight)) if weight[j] != 0 for n in z["zn"][j]] if "zn" in z else []
        return [float(logit_scale) * float(z["zq"][i] @ c) for c in [*passages, *hard]]

    whole = {name: unit(z[-1]) for name, z in layers.items()}
    smaller = {name: unit(unit(z[layer - 1])[..., :dim]) for name, z in layers.items()}
    return np.array([kl(scores(whole, i), scores(smaller, i)) for i in range(len(weight))])
