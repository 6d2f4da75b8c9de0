"""GISTEmbed: a softmax contrastive loss whose negatives a frozen guide model picks."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from losses import positives as pairs
from losses.similarity import cosines, einsum

NEGATIVES = ("all", "own")
ALSO = ("query_query", "passage_passage")
MARGINS = ("absolute", "relative")


def gist(
    zq: Float[Array, "B d"],
    zp: Float[Array, "N d"],
    zq_guide: Float[Array, "B g"],
    zp_guide: Float[Array, "N g"],
    logit_scale: Float[Array, ""],
    id: Int[Array, " B"] | None = None,
    alias: Int[Array, " B"] | None = None,
    zn: Float[Array, "B K d"] | None = None,
    zn_guide: Float[Array, "B K g"] | None = None,
    weight: Float[Array, " B"] | None = None,
    *,
    also: Sequence[str] = ALSO,
    margin: float = 0.0,
    margin_kind: str = "absolute",
    negatives: str = "all",
    matmul_dtype: str = "float32",
) -> tuple[Float[Array, " B"], Float[Array, " B"], dict]:
    """Each query picks its own passage; what the guide finds nearer to a row than that row's own pair is no candidate.

    Args:
        zq: query embeddings, unit length.
        zp: passage embeddings, unit length; row i < B belongs to query i, later rows to none.
        zq_guide: the guide's embeddings of the queries, of any length: their cosines decide. Not differentiated.
        zp_guide: the guide's embeddings of the passages, likewise.
        logit_scale: 1 / temperature, no unit; the paper keeps it at 100.
        id: label of each pair; pairs of one label are no negatives of each other, whatever the guide says. None: all differ.
        alias: a second label of the same use.
        zn: hard negatives of each query, unit length; candidates too, unless the guide drops them.
        zn_guide: the guide's embeddings of the hard negatives; needed with `zn`.
        weight: of each pair in the mean over the batch; 0 marks padding, which is also no candidate for anyone. None: all 1.
        also: candidates beside the passages: "query_query", the cosines of a query with the others, and "passage_passage", those of
            its passage with the others.
        margin: how much less than the own pair's cosine is still too near.
        margin_kind: "absolute": drops what the guide puts above g - margin, g being its cosine of the own pair; "relative": above
            g - |g| margin, which raises no threshold where g is below 0 (the first published form, g (1 - margin), did).
        negatives: "all": hard negatives are candidates for every query; "own": for the query they were mined for.
        matmul_dtype: of the operands of similarity matmuls; sums are float32. float64 embeddings stay float64.

    Returns:
        Loss of each query in nats (0 for padding), the weight of each, and `dropped`, the share of the candidates that the guide drops.

    Raises:
        ValueError: fewer passages than queries, an option that is not offered, or hard negatives that the guide has not read.

    Relations: where the guide drops nothing, also=() is `infonce` with symmetric=False and positives="exclude".
    Source: Solatorio 2024, arXiv:2402.16829, eqs. 2 to 6; margins as in sentence-transformers.
    """
    _check(zq, zp, zn, zn_guide, also, margin_kind, negatives)
    valid = pairs.present(weight, zq.shape[0])
    zq, zp, zn = (pairs.blank(z, weight) for z in (zq, zp, zn))
    guides = (_directions(pairs.blank(z, weight)) for z in (zq_guide, zp_guide, zn_guide))
    logits = _candidates(zq, zp, zn, also, negatives, matmul_dtype)
    seen = _candidates(*guides, also, negatives, "float32")
    own = jnp.diagonal(seen["query_passage"])[:, None]
    threshold = own - (margin if margin_kind == "absolute" else jnp.abs(own) * margin)
    offered = _offered(logits, valid, pairs.labels(id, alias), zp.shape[0], negatives)
    near = {name: offered[name] & (cosine > threshold) for name, cosine in seen.items()}
    keep = {name: offered[name] & ~near[name] for name in logits}
    keep["query_passage"] |= jnp.eye(*keep["query_passage"].shape, dtype=bool)  # also of padding, so that no row is empty
    kept = [jnp.where(keep[name], logit_scale * cosine, -jnp.inf) for name, cosine in logits.items()]
    loss = jax.nn.logsumexp(jnp.concatenate(kept, axis=1), axis=1) - logit_scale * jnp.diagonal(logits["query_passage"])
    total = lambda masks: sum((mask & valid[:, None]).sum() for mask in masks.values()).astype(loss.dtype)
    rows = jnp.ones_like(loss) if weight is None else weight
    return jnp.where(valid, loss, 0), rows, {"dropped": (total(near), total(offered))}


def _directions(z: Array | None) -> Array | None:
    """Rows of length one without a gradient; what is stored of a guide may have any length."""
    return None if z is None else jax.lax.stop_gradient(z / jnp.maximum(jnp.linalg.norm(z, axis=-1, keepdims=True), 1e-12))


def _candidates(zq, zp, zn, also: Sequence[str], negatives: str, matmul_dtype: str) -> dict[str, Float[Array, "B C"]]:
    """Cosines by block; those of queries with passages hold the target."""
    sides = {"query_passage": (zq, zp), "query_query": (zq, zq), "passage_passage": (zp[: zq.shape[0]], zp)}
    found = {name: cosines(*sides[name], matmul_dtype) for name in ("query_passage", *also)}
    if zn is not None and negatives == "own":
        found["hard"] = einsum("qd,qkd->qk", zq, zn, matmul_dtype)
    elif zn is not None:
        found["hard"] = cosines(zq, zn.reshape(-1, zn.shape[2]), matmul_dtype)
    return found


def _offered(cosines_by_block, valid, ids, passages: int, negatives: str) -> dict[str, Bool[Array, "B C"]]:
    """What may be a negative before the guide is asked: no padding, nothing of one's own, nothing of one's label."""
    queries = valid.shape[0]
    alone = ~pairs.pair_mask(ids, queries, passages)  # neither one's own nor of one's label
    found = {}
    for name, block in cosines_by_block.items():
        if name == "hard":
            there = jnp.repeat(valid, block.shape[1] // queries)[None, :] if negatives == "all" else True
            found[name] = jnp.broadcast_to(there, block.shape)
        else:
            found[name] = alone[:, : block.shape[1]] & pairs.beyond(valid, block.shape[1])[None, :]
    return found


def _check(zq, zp, zn, zn_guide, also: Sequence[str], margin_kind: str, negatives: str) -> None:
    for block in also:
        pairs.check_option("also", block, ALSO)
    pairs.check_option("margin_kind", margin_kind, MARGINS)
    pairs.check_option("negatives", negatives, NEGATIVES)
    pairs.check_pairs(zq.shape[0], zp.shape[0])
    if (zn is None) != (zn_guide is None):
        raise ValueError("hard negatives need the guide's reading of them: map config.losses.<label>.inputs.zn and .zn_guide, or neither.")
