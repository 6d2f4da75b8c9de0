"""Retrieval in both directions between the images and the texts of a source's `retrieval()` task."""

from collections.abc import Callable, Mapping

import numpy as np

from evals import gallery, geometry, metrics
from evals.evaluation import Evaluation

GEOMETRY_ROWS = 2048  # uniformity compares all pairs of rows


def image_text_retrieval(
    encode: Mapping[str, Callable], data, *, ks=(1, 5, 10), gallery_queries: int = 24, gallery_pairs: int = 28, seed: int = 0
) -> Evaluation:
    """Each image ranks all texts and each text ranks all images; a hit is any relevant one among the first k.

    Args:
        encode: functions of the views `image` and `text`.
        data: a source with `retrieval()`; every image needs a relevant text and every text a relevant image.
        ks: cut-offs of recall.
        gallery_queries: images shown with their best texts; 0 leaves the gallery out.
        gallery_pairs: rows of the similarity map.
        seed: of the samples in the gallery, which no metric depends on, and of the rows that geometry is measured on.

    Returns:
        `{img2txt,txt2img}/{recall@k,recall@k_pessimistic,recall@1_chance,median_rank,mean_rank,tie_rate}`, `rsum` (percentages, both
        directions at 1, 5, 10), `geometry/*` and `count/{images,texts}`; the primary one is `img2txt/recall@1`.

    Raises:
        ValueError: embeddings that are not finite, or an image or text without a partner; names the rows.

    Source: Karpathy and Fei-Fei 2015 protocol.
    """
    ks = tuple(sorted({1, *ks}))  # 1 is the primary metric
    task = data.retrieval()
    images = metrics.unit(encode["image"](task.images), "image embeddings")
    texts = metrics.unit(encode["text"](task.texts), "text embeddings")
    forward = np.asarray(task.relevant)
    img2txt, values = _direction(images, texts, forward, ks, "img2txt")
    txt2img, back = _direction(texts, images, forward[:, ::-1], ks, "txt2img")
    values |= back | {"rsum": metrics.rsum(img2txt, txt2img)} | _geometry(images, texts, forward, seed)
    values |= {"count/images": float(len(images)), "count/texts": float(len(texts))}
    shown = _gallery(task, images, texts, img2txt, gallery_queries, gallery_pairs, seed) if gallery_queries else {}
    items = (img2txt.reference < 1).astype(np.float64)
    return Evaluation("img2txt/recall@1", values, len(images), shown, items)


def _direction(queries, candidates, relevant, ks, name: str) -> tuple[metrics.Ranks, dict[str, float]]:
    try:
        found = metrics.ranks(queries, candidates, relevant)
    except ValueError as error:
        raise ValueError(f"{name}: {error} Check retrieval().relevant of the source in config.evals.<label>.data.") from error
    values = metrics.retrieval_metrics(found, ks, name)
    values[f"{name}/recall@1_chance"] = metrics.chance(relevant, len(queries), len(candidates), 1)
    return found, values


def _geometry(images: np.ndarray, texts: np.ndarray, relevant: np.ndarray, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    pairs = relevant[rng.permutation(len(relevant))[:GEOMETRY_ROWS]]
    some = {view: rows[rng.permutation(len(rows))[:GEOMETRY_ROWS]] for view, rows in (("image", images), ("text", texts))}
    out = {
        "geometry/alignment": geometry.alignment(images[pairs[:, 0]], texts[pairs[:, 1]]),
        "geometry/modality_gap": geometry.modality_gap(images, texts),
    }
    for view, rows in some.items():
        out[f"geometry/effective_rank_{view}"] = geometry.effective_rank(rows)
        if len(rows) > 1:
            out[f"geometry/uniformity_{view}"] = geometry.uniformity(rows)
    return out


def _gallery(task, images, texts, found, queries: int, pairs: int, seed: int) -> dict[str, np.ndarray]:
    character = gallery.own_texts(task)
    shown = gallery.retrieval_grid(task, images, texts, found, gallery.spread(task.groups, queries, seed, distinct=character))
    if pairs:
        shown |= gallery.similarity(task, images, texts, gallery.spread(task.groups, pairs, seed + 1, distinct=character))
    return shown | gallery.embedding_map(task, images, texts, seed)
