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


def _bert_layer(params, asked, seen, visible, heads, eps):
    """One layer of BERT for one text [T][w]: queries and residual from `asked`, keys and values from the visible ones of `seen`."""
    linear = lambda name, x, part=params: x @ part[name]["kernel"] + part[name]["bias"]
    keys, values = ([linear(name, x) for x in seen] for name in ("key", "value"))
    made, dim = [], len(seen[0]) // heads
    for t, x in enumerate(asked):
        query, parts = linear("query", x), []
        among = [j for j in range(len(seen)) if visible[t, j]]
        for h in range(heads):
            cut = slice(h * dim, (h + 1) * dim)
            shares = _log_softmax([query[cut] @ keys[j][cut] / math.sqrt(dim) for j in among])
            parts.append(sum(math.exp(share) * values[j][cut] for share, j in zip(shares, among, strict=True)))
        x = _normed(params["norm_attention"], x + linear("out", np.concatenate(parts)), eps)
        mlp = params["mlp"]
        made.append(_normed(params["norm_mlp"], x + linear("fc_out", _gelu(linear("fc_in", x, mlp)), mlp), eps))
    return made


def _normed(part, x, eps):
    return _norm(x, part["scale"], part["bias"], eps)


def _language(params, x, eps):
    """BERT's head before the vocabulary, of the first values of a state: as many rows of its matrix count."""
    return _normed(params["norm"], _gelu(x @ params["linear"]["kernel"][: len(x)] + params["linear"]["bias"]), eps)


def decoder(params, tokens, original, visible, table, places, types, scale, bias, heads, eps):
    """What RetroMAE's decoder returns before the vocabulary `[B T w]`, one row at a time; `params` as the head has them, float64."""
    made = np.zeros(tokens.shape)
    for b in range(len(tokens)):
        vector, count = tokens[b, 0], tokens.shape[1]
        seen = [vector] + [_norm(table[original[b, t]] + places[t] + types[0], scale, bias, eps) for t in range(1, count)]
        asked = [_norm(vector + places[t] + types[0], scale, bias, eps) for t in range(count)]
        rows = _bert_layer(params["decoder"], asked, seen, visible[b], heads, eps)
        made[b] = [_language(params["language"], x, eps) for x in rows]
    return made


def starbucks_mae(params, layers, ids, mask, table, places, types, scale, bias, size, heads, eps):
    """States of Starbucks' pretraining at one size (layer, width), of the encoder and of the decoder, both `[B T w]`."""
    (layer, m), language = size, params["language"]
    states = layers[layer - 1][:, :, :m]
    encoder, decoded = np.zeros(layers.shape[1:]), np.zeros(layers.shape[1:])
    for b in range(len(ids)):
        encoder[b] = [_language(language, x, eps) for x in states[b]]
        words = [_norm(table[ids[b, t]] + places[t] + types[0], scale, bias, eps) for t in range(1, ids.shape[1])]
        read = [encoder[b, 0], *words]
        rows = _bert_layer(params["decoder"], read, read, np.broadcast_to(mask[b], (len(read), len(read))), heads, eps)
        decoded[b] = [_language(language, x, eps) for x in rows]
    return encoder, decoded
