"""BERT, ModernBERT and decoders by definition, in float64 numpy: one text, one head and one token at a time.

They return all last states; padding sees at least itself, and nobody reads it.
"""

import numpy as np

from tests.oracles.towers import ACTIVATIONS, attend, layer_norm, linear, mlp, wide


def norm(x, p, eps):
    """LayerNorm without a shift."""
    return layer_norm(x, p | {"bias": 0.0}, eps)


def rms(x, p, eps):
    """Each token to a mean square of 1, then scale."""
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * p["scale"]


def turned(x, theta):
    """Pairs (i, i + d/2) of [T d] as complex numbers, turned by position * theta^(-2i/d)."""
    half = x.shape[1] // 2
    angle = np.array([[t * theta ** (-2 * i / x.shape[1]) for i in range(half)] for t in range(len(x))])
    z = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angle)
    return np.concatenate([z.real, z.imag], axis=1)


def attention(x, p, heads, kept, theta=None, qk_eps=None, bias=None):
    """Self-attention with any of: grouped keys and values, rotary positions, normed queries and keys, biased scores."""
    parts = []
    kv_heads = p["kv_kernel"].shape[2] if "kv_kernel" in p else heads
    for h in range(heads):
        if "kv_kernel" in p:
            at = (p["q_kernel"][:, h], *(p["kv_kernel"][:, c, h // (heads // kv_heads)] for c in range(2)))
        else:
            at = tuple(p["qkv_kernel"][:, c, h] for c in range(3))
        q, k, v = (x @ kernel for kernel in at)
        if "qkv_bias" in p:
            q, k, v = (a + p["qkv_bias"][c, h] for c, a in enumerate((q, k, v)))
        if qk_eps is not None:
            q, k = rms(q, p["query_norm"], qk_eps), rms(k, p["key_norm"], qk_eps)
        if theta is not None:
            q, k = turned(q, theta), turned(k, theta)
        if bias is None:
            parts.append(attend(q, k, v, kept))
        else:
            score = q @ k.T / np.sqrt(q.shape[1]) + bias[h]
            seen = np.array([[kept(i, j) for j in range(len(x))] for i in range(len(x))])
            weight = np.where(seen, np.exp(score), 0)
            parts.append(weight / weight.sum(1, keepdims=True) @ v)
    return linear(np.concatenate(parts, axis=1), p["out"])


def gated(x, p, activation):
    """activation(x U) * (x G), then a linear layer."""
    return linear(ACTIVATIONS[activation](x @ p["gated_kernel"][:, 0]) * (x @ p["gated_kernel"][:, 1]), p["fc_out"])


def bucket(distance, buckets):
    """Where a key `distance` tokens before its query falls; keys after it in the upper half."""
    half = buckets // 2
    upper, near = (half, -distance) if distance < 0 else (0, distance)
    far = half // 2 + int(np.log(max(near, 1) / (half // 2)) / np.log(128 / (half // 2)) * (half - half // 2))
    return upper + (near if near < half // 2 else min(far, half - 1))


def bert(params, tower, ids, mask):
    """LN(x + attention), LN(x + MLP), after normed sums of word, place and type."""
    p, out = wide(params), []
    for row, keep in zip(ids, mask, strict=True):
        first = tower.position_offset
        place = [int(keep[: i + 1].sum()) - 1 + first if keep[i] else 0 for i in range(len(row))] if first else range(len(row))
        x = np.stack([p["token_embedding"][t] + p["position_embedding"][i] for t, i in zip(row, place, strict=True)])
        x = layer_norm(x + (p["type_embedding"][0] if tower.token_types else 0), p["norm_embedding"], tower.norm_eps)
        bias = None
        if tower.relative_buckets:
            found = [[bucket(i - j, tower.relative_buckets) for j in range(len(row))] for i in range(len(row))]
            bias = np.moveaxis(p["relative_bias"][np.array(found)], 2, 0)
        for i in range(tower.layers):
            b = p["blocks"][f"block_{i}"]
            y = attention(x, b["attention"], tower.heads, lambda i, j, keep=keep: keep[j], bias=bias)
            x = layer_norm(x + y, b["norm_attention"], tower.norm_eps)
            x = layer_norm(x + mlp(x, b["mlp"], tower.activation), b["norm_mlp"], tower.norm_eps)
        out.append(x)
    return np.stack(out)


def modernbert(params, tower, ids, mask):
    """Global every few layers, near neighbours else, each kind with a base of its own."""
    p, out = wide(params), []
    for row, keep in zip(ids, mask, strict=True):
        x = norm(p["token_embedding"][row], p["norm_embedding"], tower.norm_eps)
        for i in range(tower.layers):
            b, local = p["blocks"][f"block_{i}"], i % tower.global_every
            near = lambda i, j, local=local: not local or abs(i - j) <= tower.window
            kept = lambda i, j, near=near, keep=keep: (keep[j] and near(i, j)) or (i == j and not keep[i])
            y = norm(x, b["norm_attention"], tower.norm_eps) if i else x
            x = x + attention(y, b["attention"], tower.heads, kept, tower.local_theta if local else tower.global_theta)
            x = x + gated(norm(x, b["norm_mlp"], tower.norm_eps), b["mlp"], tower.activation)
        out.append(norm(x, p["norm"], tower.norm_eps))
    return np.stack(out)


def decoder(params, tower, ids, mask):
    """RMS norms, grouped queries, SwiGLU."""
    p, out = wide(params), []
    for row, keep in zip(ids, mask, strict=True):
        x = p["token_embedding"][row]
        near = lambda i, j: not tower.window or abs(i - j) <= tower.window
        kept = lambda i, j, keep=keep, near=near: (keep[j] and near(i, j) and (j <= i or not tower.causal)) or (i == j and not keep[i])
        for i in range(tower.layers):
            b, eps = p["blocks"][f"block_{i}"], tower.norm_eps
            y = rms(x, b["norm_attention"], eps)
            x = x + attention(y, b["attention"], tower.heads, kept, tower.rope_theta, eps if tower.qk_norm else None)
            x = x + gated(rms(x, b["norm_mlp"], eps), b["mlp"], tower.activation)
        out.append(rms(x, p["norm"], tower.norm_eps))
    return np.stack(out)
