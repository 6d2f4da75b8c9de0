"""Small samples that the report draws from, chosen before any result is seen.

Everything is a plain array without pickle: images uint8, scores float32, strings '<U', embeddings float16 (maps only).
"""

import collections
from collections.abc import Sequence

import numpy as np

from evals import metrics, ranked
from input_pipeline import decode

TOP = 5
LONGEST_SIDE = 96  # pixels; a report enlarges small images and has no use for larger ones
NAME_LENGTH = 120
PASSAGE_LENGTH = 400


def spread(groups: Sequence[str], count: int, seed: int, distinct: Sequence | None = None) -> np.ndarray:
    """Indices of a seeded sample in which a group's share grows with the square root of its size.

    A proportional sample would show little but the largest group, an equal one mostly rare groups.

    Args:
        groups: label of each row.
        count: rows to take; fewer come back when there are fewer.
        seed: of the order within groups.
        distinct: where given, no two rows of the sample share this value.
    """
    order = np.random.default_rng(seed).permutation(len(groups))
    if distinct is not None:
        order = order[np.sort(np.unique(np.asarray(distinct)[order], return_index=True)[1])]
    labels, inverse, sizes = np.unique(np.asarray(groups, str)[order], return_inverse=True, return_counts=True)
    place = np.empty(len(order))
    for group in range(len(labels)):
        place[inverse == group] = np.arange(sizes[group]) + 0.5
    return order[np.argsort(place / np.sqrt(sizes[inverse]), kind="stable")[:count]]


def thumbnails(images: Sequence[np.ndarray | bytes]) -> np.ndarray:
    """Images, or the bytes of their files, as one array [N H W C], cut down by whole steps to 96 pixels a side and padded with zeros to
    a common size."""
    small = []
    for image in map(decode.pixels, images):
        step = -(-max(image.shape[:2]) // LONGEST_SIDE)
        small.append(np.asarray(image, np.uint8)[::step, ::step])
    height, width, channels = (max(image.shape[axis] for image in small) for axis in range(3))
    out = np.zeros((len(small), height, width, channels), np.uint8)
    for target, image in zip(out, small, strict=True):
        target[: image.shape[0], : image.shape[1]] = image
    return out


def names(texts: Sequence[str]) -> np.ndarray:
    """Texts as an array of strings, each cut to 120 characters."""
    return np.array([text if len(text) <= NAME_LENGTH else text[: NAME_LENGTH - 1] + "…" for text in texts], dtype=str)


def retrieval_grid(task, images: np.ndarray, texts: np.ndarray, found: metrics.Ranks, picked: np.ndarray) -> dict[str, np.ndarray]:
    """Queries with their five best texts: `query_{images,names,relevant,groups,ranks}` [Q ...], `top_{names,scores,right}` [Q 5].

    `query_names` is one right text, `query_relevant` how many are right.
    """
    relevant, own = relevant_lists(task.relevant, len(task.images)), own_texts(task)
    score = metrics.scores(images[picked], texts)
    top = np.argsort(-score, axis=1, kind="stable")[:, :TOP]
    return {
        "query_images": thumbnails([task.images[i] for i in picked]),
        "query_names": names([task.texts[own[i]] for i in picked]),
        "query_relevant": np.array([len(relevant[i]) for i in picked]),
        "query_groups": names([task.groups[i] for i in picked]),
        "query_ranks": found.reference[picked],
        "top_names": names([task.texts[j] for j in top.ravel()]).reshape(top.shape),
        "top_scores": np.take_along_axis(score, top, axis=1),
        "top_right": np.array([[j in relevant[i] for j in row] for i, row in zip(picked, top, strict=True)]),
    }


def similarity(task, images: np.ndarray, texts: np.ndarray, picked: np.ndarray) -> dict[str, np.ndarray]:
    """Every picked image against every picked image's text, ordered by group: `pair_{images,names,groups,scores,relevant}`."""
    relevant, own = relevant_lists(task.relevant, len(task.images)), own_texts(task)
    picked = np.array(sorted(picked.tolist(), key=lambda i: (task.groups[i], task.texts[own[i]])))
    columns = [own[i] for i in picked]
    return {
        "pair_images": thumbnails([task.images[i] for i in picked]),
        "pair_names": names([task.texts[j] for j in columns]),
        "pair_groups": names([task.groups[i] for i in picked]),
        "pair_scores": metrics.scores(images[picked], texts[columns]),
        "pair_relevant": np.array([[j in relevant[i] for j in columns] for i in picked]),
    }


def embedding_map(
    task, images: np.ndarray, texts: np.ndarray, seed: int, most_images: int = 1500, most_texts: int = 500
) -> dict[str, np.ndarray]:
    """Embeddings to project: `map_{image,text}_{embeddings,names,groups}`."""
    rng = np.random.default_rng(seed)
    own, groups = own_texts(task), text_groups(task)
    rows = np.sort(rng.permutation(len(task.images))[:most_images])
    columns = np.sort(rng.permutation(len(task.texts))[:most_texts])
    return {
        "map_image_embeddings": images[rows].astype(np.float16),
        "map_image_names": names([task.texts[own[i]] for i in rows]),
        "map_image_groups": names([task.groups[i] for i in rows]),
        "map_text_embeddings": texts[columns].astype(np.float16),
        "map_text_names": names([task.texts[j] for j in columns]),
        "map_text_groups": names([groups[j] for j in columns]),
    }


def text_groups(task) -> list[str]:
    """The group that most images of each text belong to."""
    images = relevant_lists(np.asarray(task.relevant)[:, ::-1], len(task.texts))
    return [collections.Counter(task.groups[i] for i in own).most_common(1)[0][0] for own in images]


def own_texts(task) -> list[int]:
    """One relevant text of each image, to name it by: the first of the image's own group, or else the first."""
    groups = text_groups(task)
    relevant = relevant_lists(task.relevant, len(task.images))
    return [next((j for j in own if groups[j] == group), own[0]) for own, group in zip(relevant, task.groups, strict=True)]


def relevant_lists(relevant: np.ndarray, queries: int) -> list[list[int]]:
    """The relevant candidates of each query, in the order of the pairs."""
    out: list[list[int]] = [[] for _ in range(queries)]
    for query, candidate in np.asarray(relevant).tolist():
        out[query].append(candidate)
    return out


def ranked_lists(
    task, score_rows, found: ranked.Judged, place: np.ndarray, tie: np.ndarray, count: int, seed: int
) -> dict[str, np.ndarray]:
    """Queries with their best candidates: `ranked_{queries,kinds,places,answers,relevant}` [Q], `ranked_top_{texts,scores,right}` [Q 5].

    A seeded sample comes first, then the queries whose first relevant candidate stands last, except those already shown.
    `ranked_answers` is that candidate, `ranked_relevant` how many are relevant.
    """
    first = np.full(len(found.queries), len(tie))
    np.minimum.at(first, found.query, place)
    answered = np.flatnonzero(first < len(tie))
    drawn = answered[np.random.default_rng(seed).permutation(len(answered))[:count]]
    worst = [q for q in answered[np.argsort(-first[answered], kind="stable")].tolist() if q not in set(drawn.tolist())][:count]
    picked = np.array([*drawn.tolist(), *worst], np.int64)
    scores = score_rows(found.queries[picked])
    top = np.array([np.lexsort((tie, -row))[:TOP] for row in scores]).reshape(len(picked), -1)
    own = {q: found.candidate[found.query == q] for q in picked.tolist()}
    best = [next(c for c, at in zip(own[q], place[found.query == q], strict=True) if at == first[q]) for q in picked.tolist()]
    return {
        "ranked_queries": passages([task.queries[i] for i in found.queries[picked]]),
        "ranked_kinds": np.array(["drawn"] * len(drawn) + ["worst"] * len(worst), dtype=str),
        "ranked_places": first[picked],
        "ranked_answers": passages([task.corpus[i] for i in best]),
        "ranked_relevant": np.array([len(own[q]) for q in picked.tolist()]),
        "ranked_top_texts": passages([task.corpus[i] for i in top.ravel()]).reshape(top.shape),
        "ranked_top_scores": np.take_along_axis(scores, top, axis=1),
        "ranked_top_right": np.array([np.isin(row, own[q]) for row, q in zip(top, picked.tolist(), strict=True)], bool),
    }


def passages(values: Sequence) -> np.ndarray:
    """Texts as an array of strings, each cut to 400 characters with its lines kept; anything else by its number."""
    texts = [value if isinstance(value, str) else f"{type(value).__name__} {i}" for i, value in enumerate(values)]
    return np.array([text if len(text) <= PASSAGE_LENGTH else text[: PASSAGE_LENGTH - 1] + "…" for text in texts], dtype=str)
