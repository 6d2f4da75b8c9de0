"""Losses over tokens, and RetroMAE's decoder, by definition: float64 loops over rows, tokens and words."""

import math

import numpy as np


def _log_softmax(scores):
    top = max(scores)
    total = top + math.log(sum(math.exp(s - top) for s in scores))
    return [s - total for s in scores]


def _scores(state, table, bias):
    return [sum(float(a) * float(b) for a, b in zip(state, word, strict=True)) + float(b) for word, b in zip(table, bias, strict=True)]


def masked_language(states, table, target, bias=None, weight=None):
    bias = np.zeros(len(table)) if bias is None else bias
    values, weights = np.zeros(len(states)), np.zeros(len(states))
    for row in range(len(states)):
        given = 1.0 if weight is None else float(weight[row])
        asked = [t for t in range(len(target[row])) if target[row][t] >= 0 and given != 0]
        losses = [-_log_softmax(_scores(states[row][t], table, bias))[target[row][t]] for t in asked]
        values[row] = sum(losses) / len(losses) if losses else 0
        weights[row] = len(losses) * given
    return values, weights


def bag_of_words(states, table, own, bias=None, weight=None):
    bias = np.zeros(len(table)) if bias is None else bias
    values, weights = np.zeros(len(states)), np.zeros(len(states))
    for row in range(len(states)):
        given = 1.0 if weight is None else float(weight[row])
        tokens = [t for t in range(len(own[row])) if own[row][t] >= 0 and given != 0]
        if not tokens:
            continue
        each = [_scores(states[row][t], table, bias) for t in tokens]
        highest = _log_softmax([max(scores[word] for scores in each) for word in range(len(table))])
        values[row] = -sum(highest[word] for word in {int(own[row][t]) for t in tokens}) / len(tokens)
        weights[row] = given
    return values, weights


def _norm(x, scale, bias, eps):
    return (x - x.mean()) / math.sqrt(((x - x.mean()) ** 2).mean() + eps) * scale + bias


def _gelu(x):
    return np.array([0.5 * a * (1 + math.erf(a / math.sqrt(2))) for a in x])


def decoder(params, tokens, original, visible, table, places, types, scale, bias, heads, eps):
    """What RetroMAE's decoder returns before the vocabulary `[B T w]`, one row at a time; `params` as the head has them, float64."""
    made, dim = np.zeros(tokens.shape), tokens.shape[2] // heads
    linear = lambda name, x, part=params["decoder"]: x @ part[name]["kernel"] + part[name]["bias"]
    normed = lambda part, x: _norm(x, part["scale"], part["bias"], eps)
    for b in range(len(tokens)):
        vector, count = tokens[b, 0], tokens.shape[1]
        seen = [vector] + [_norm(table[original[b, t]] + places[t] + types[0], scale, bias, eps) for t in range(1, count)]
        keys, values = ([linear(name, x) for x in seen] for name in ("key", "value"))
        for t in range(count):
            asked = _norm(vector + places[t] + types[0], scale, bias, eps)
            query, parts = linear("query", asked), []
            among = [j for j in range(count) if visible[b, t, j]]
            for h in range(heads):
                cut = slice(h * dim, (h + 1) * dim)
                shares = _log_softmax([query[cut] @ keys[j][cut] / math.sqrt(dim) for j in among])
                parts.append(sum(math.exp(share) * values[j][cut] for share, j in zip(shares, among, strict=True)))
            x = normed(params["decoder"]["norm_attention"], asked + linear("out", np.concatenate(parts)))
            mlp = params["decoder"]["mlp"]
            x = normed(params["decoder"]["norm_mlp"], x + linear("fc_out", _gelu(linear("fc_in", x, mlp)), mlp))
            language = params["language"]
            made[b, t] = normed(language["norm"], _gelu(linear("linear", x, language)))
    return made
