"""Towers by definition, in float64 numpy: one image or text, one head and one token at a time."""

import math

import numpy as np

_erf = np.vectorize(math.erf)
ACTIVATIONS = {
    "gelu": lambda x: x * (1 + _erf(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    "quick_gelu": lambda x: x / (1 + np.exp(-1.702 * x)),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
}


def wide(params):
    """A parameter tree in float64."""
    return {k: wide(v) if isinstance(v, dict) else np.asarray(v, np.float64) for k, v in params.items()}


def linear(x, p):
    """x W + b."""
    return x @ p["kernel"] + p.get("bias", 0)


def layer_norm(x, p, eps):
    """Each token to mean 0 and variance 1, then scale and shift."""
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps) * p["scale"] + p["bias"]


def attend(q, k, v, kept):
    """One head: row i of the result is the softmax-weighted mean of the values that i may see."""
    out = np.zeros((len(q), v.shape[1]))
    for i in range(len(q)):
        seen = [j for j in range(len(k)) if kept(i, j)]
        score = np.array([q[i] @ k[j] / math.sqrt(q.shape[1]) for j in seen])
        weight = np.exp(score - score.max())
        out[i] = sum(w * v[j] for w, j in zip(weight / weight.sum(), seen, strict=True))
    return out


def attention(x, p, heads, kept):
    """Multi-head self-attention of one sequence [T w]."""
    parts = []
    for h in range(heads):
        q, k, v = (x @ p["qkv_kernel"][:, c, h] + p["qkv_bias"][c, h] for c in range(3))
        parts.append(attend(q, k, v, kept))
    return linear(np.concatenate(parts, axis=1), p["out"])


def mlp(x, p, activation):
    """Two linear layers."""
    return linear(ACTIVATIONS[activation](linear(x, p["fc_in"])), p["fc_out"])


def blocks(x, p, tower, kept):
    """States after each block of one sequence."""
    states = []
    for i in range(tower.layers):
        b = p[f"block_{i}"]
        x = x + attention(layer_norm(x, b["norm_attention"], tower.norm_eps), b["attention"], tower.heads, kept)
        x = x + mlp(layer_norm(x, b["norm_mlp"], tower.norm_eps), b["mlp"], tower.activation)
        states.append(x)
    return states


def attention_pool(x, p, tower, mask):
    """a + MLP(LN(a)), where a is what a learned probe reads."""
    q, k, v = linear(p["probe"][0], p["query"]), linear(x, p["key"]), linear(x, p["value"])
    size = q.shape[1] // tower.heads
    cut = lambda a, h: a[:, h * size : (h + 1) * size]
    heads = [attend(cut(q, h), cut(k, h), cut(v, h), lambda i, j: mask[j]) for h in range(tower.heads)]
    a = linear(np.concatenate(heads, axis=1), p["out"])
    return (a + mlp(layer_norm(a, p["norm"], tower.norm_eps), p["mlp"], tower.activation))[0]


def pool(x, p, tower, mask, ids=None):
    """Normed tokens to one vector."""
    kept = [i for i in range(len(x)) if mask[i]]
    if tower.pooling == "mean":
        return sum(x[i] for i in kept) / len(kept)
    if tower.pooling == "attention":
        return attention_pool(x, p["pool"], tower, mask)
    return x[{"cls": lambda: 0, "last": lambda: kept[-1], "eos": lambda: list(ids).index(tower.eos_id)}[tower.pooling]()]


def text(params, tower, ids, mask):
    """Embeddings [B d] of token ids."""
    p, out = wide(params), []
    for row, keep in zip(ids, mask, strict=True):
        x = np.stack([p["token_embedding"][t] + p["position_embedding"][i] for i, t in enumerate(row)])
        kept = (lambda i, j: j <= i) if tower.causal else (lambda i, j, keep=keep: keep[j])
        x = layer_norm(blocks(x, p["blocks"], tower, kept)[-1], p["norm"], tower.norm_eps)
        out.append(pool(x, p, tower, keep, row) @ p["projection"]["kernel"])
    return np.stack(out)


def sincos(side, width):
    """Position table: [sin x, cos x, sin y, cos y], frequencies from 1 down to 1 / 10,000."""
    quarter = width // 4
    row = lambda y, x: [f(a * 10_000 ** (-k / (quarter - 1))) for a in (x, y) for f in (math.sin, math.cos) for k in range(quarter)]
    return np.array([row(y, x) for y in range(side) for x in range(side)])


def patches(image, p, tower):
    """Linear embedding of each patch, in reading order; pixels uint8."""
    size, side = tower.patch_size, tower.image_size // tower.patch_size
    x = (image / 255 - np.array(tower.pixel_mean)) / np.array(tower.pixel_std)
    cut = lambda r, c: x[r * size : (r + 1) * size, c * size : (c + 1) * size]
    return np.stack([np.tensordot(cut(r, c), p["patch_kernel"], 3) + p["patch_bias"] for r in range(side) for c in range(side)])


def vit(params, tower, images):
    """Embeddings [B d] of uint8 images."""
    p, out = wide(params), []
    side = tower.image_size // tower.patch_size
    position = p["position_embedding"][0] if tower.posemb == "learn" else sincos(side, tower.width)
    for image in images:
        x = patches(np.asarray(image, np.float64), p, tower) + position
        if tower.pooling == "cls":
            x = np.concatenate([p["class_token"][0], x])
        x = layer_norm(blocks(x, p["blocks"], tower, lambda i, j: True)[-1], p["norm"], tower.norm_eps)
        out.append(pool(x, p, tower, [True] * len(x)) @ p["projection"]["kernel"])
    return np.stack(out)
