"""Pictures of a gallery: pixel images as data URIs, and cells and points as plain values that the page's template draws."""

import base64
import collections
import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

COLOURED_GROUPS = 10  # more hues are not told apart
T_SNE_FROM = 30  # points; fewer have no neighbourhoods to keep
LABEL_FROM = 0.02  # share of the points from which a group's name is written on the map


def data_uri(image: np.ndarray) -> str:
    """A uint8 image [H W C] (or [H W 1]) as a PNG data URI."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def is_ink(images: np.ndarray) -> bool:
    """Whether these are grey marks on black, which a light page shows inverted, as ink on paper."""
    return images.shape[-1] == 1 and float(np.median(images)) < 32


def grid(arrays: Mapping[str, np.ndarray]) -> list[dict]:
    """The queries of a retrieval grid with their five best texts; `width` is a bar's percentage, scaled to the best score shown."""
    widest = max(float(arrays["top_scores"].max()), 1e-9)
    cards = []
    for q, image in enumerate(arrays["query_images"]):
        top = [
            {"name": name, "score": round(score, 2) + 0.0, "width": round(100 * max(score, 0) / widest, 1), "right": right}
            for name, score, right in zip(*(arrays[f"top_{part}"][q].tolist() for part in ("names", "scores", "right")), strict=True)
        ]
        names = ("query_names", "query_groups", "query_ranks", "query_relevant")
        name, group, rank, relevant = (arrays[key][q].item() for key in names)
        cards.append({"image": data_uri(image), "name": name, "group": group, "rank": rank + 1, "others": relevant - 1, "top": top})
    return cards


def ranked_lists(arrays: Mapping[str, np.ndarray]) -> dict[str, list[dict]]:
    """Queries with their best candidates, by why they are shown: `drawn` before any result, or gone `worst`."""
    out: dict[str, list[dict]] = {}
    for q, query in enumerate(arrays["ranked_queries"].tolist()):
        top = zip(*(arrays[f"ranked_top_{part}"][q].tolist() for part in ("texts", "scores", "right")), strict=True)
        card = {"query": query, "place": int(arrays["ranked_places"][q]) + 1, "answer": arrays["ranked_answers"][q].item(),
                "others": int(arrays["ranked_relevant"][q]) - 1,
                "top": [{"text": text, "score": score, "right": right} for text, score, right in top]}  # fmt: skip
        out.setdefault(arrays["ranked_kinds"][q].item(), []).append(card)
    return out


def heat_map(arrays: Mapping[str, np.ndarray]) -> dict:
    """Cells of the similarity map: opacity 0-1 from the 2nd percentile of the scores to the highest."""
    scores = arrays["pair_scores"].astype(float)
    low, high = float(np.percentile(scores, 2)), float(scores.max())
    shade = ((scores - low) / max(high - low, 1e-9)).clip(0, 1)
    return {
        "images": [data_uri(image) for image in arrays["pair_images"]],
        "names": arrays["pair_names"].tolist(),
        "groups": _runs(arrays["pair_groups"].tolist()),
        "cells": _cells(shade, scores, arrays["pair_relevant"]),
        "low": low,
        "high": high,
        "size": len(scores),
        "best": int(sum(arrays["pair_relevant"][i, row.argmax()] for i, row in enumerate(scores))),
    }


def _cells(shade: np.ndarray, scores: np.ndarray, relevant: np.ndarray) -> list[dict]:
    return [
        {"row": i, "column": j, "shade": round(float(shade[i, j]), 2), "score": float(scores[i, j]), "relevant": bool(relevant[i, j])}
        for i, j in np.ndindex(*scores.shape)
    ]


def _runs(labels: Sequence[str]) -> list[dict]:
    """Stretches of equal labels: name, first index, length."""
    out: list[dict] = []
    for i, label in enumerate(labels):
        if out and out[-1]["name"] == label:
            out[-1]["length"] += 1
        else:
            out.append({"name": label, "start": i, "length": 1})
    return out


def embedding_map(arrays: Mapping[str, np.ndarray]) -> dict:
    """Points of both views in the plane, 0-1000 across and 0-640 down, by group in order of size.

    Each view is centred first: the gap between the centroids of two views would otherwise be all that a map shows.
    """
    views = {view: arrays[f"map_{view}_embeddings"].astype(np.float32) for view in ("image", "text")}
    method, plane = project(np.concatenate([rows - rows.mean(axis=0) for rows in views.values()]))
    plane = np.array([1000, 640]) * (plane - plane.min(axis=0)) / np.ptp(plane, axis=0).clip(1e-9)
    labels = [*arrays["map_image_groups"].tolist(), *arrays["map_text_groups"].tolist()]
    names = [*arrays["map_image_names"].tolist(), *arrays["map_text_names"].tolist()]
    kinds = ["image"] * len(views["image"]) + ["text"] * len(views["text"])
    groups = _groups(labels, plane)
    for (x, y), kind, name, label in zip(plane.round(1).tolist(), kinds, names, labels, strict=True):
        groups[label]["points"].append({"x": x, "y": y, "kind": kind, "name": name})
    return {"method": method, "groups": list(groups.values()), "images": len(views["image"]), "texts": len(views["text"])}


def project(rows: np.ndarray) -> tuple[str, np.ndarray]:
    """Rows in the plane [N 2], and the name of the method: t-SNE from the first principal axes, or these for few rows."""
    left, singular, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    axes = left[:, :2] * singular[:2]
    axes = np.pad(axes, ((0, 0), (0, 2 - axes.shape[1])))
    if len(rows) < T_SNE_FROM:
        return "PCA", axes
    start = axes * (1e-4 / max(float(axes[:, 0].std()), 1e-12))  # a wide start would freeze t-SNE in the principal axes
    with threadpool_limits(1):  # beside another process, scikit-learn's threads wait for each other and took six times as long
        return "t-SNE", TSNE(init=start, perplexity=min(30, len(rows) / 4), max_iter=500, random_state=0).fit_transform(rows)


def _groups(labels: Sequence[str], plane: np.ndarray) -> dict[str, dict]:
    """Groups by size with a colour number (0 for `other` and the small ones), and where to write the name, if there is room."""
    sizes = collections.Counter(labels)
    named = [label for label, _ in sizes.most_common() if label != "other"]
    order = named + (["other"] if "other" in sizes else [])
    out, taken = {}, []
    for label in order:
        place = named.index(label) + 1 if label in named else 0
        points = plane[[found == label for found in labels]]
        centre = np.median(points, axis=0)
        inside = points[np.argmin(np.abs(points - centre).sum(axis=1))]  # a name stands on one of its own points
        coloured = 0 < place <= COLOURED_GROUPS
        free = all(abs(inside[0] - x) > 110 or abs(inside[1] - y) > 20 for x, y in taken)
        written = coloured and free and sizes[label] >= LABEL_FROM * len(labels)
        taken += [inside] if written else []
        out[label] = {
            "name": label, "size": sizes[label], "number": place if coloured else 0, "x": float(inside[0]), "y": float(inside[1]),
            "written": written, "points": [],
        }  # fmt: skip
    return out


def confusion(arrays: Mapping[str, np.ndarray]) -> dict:
    """Rows of a confusion matrix as shares of their class; the last column is every class that has no row."""
    table = arrays["confusion"].astype(float)
    names = arrays["class_names"].tolist()
    others = bool(table[:, -1].any())
    table = table if others else table[:, :-1]
    share = table / table.sum(axis=1, keepdims=True).clip(min=1)
    rows = [
        {"name": name, "recall": float(recall), "count": int(count), "cells": [round(float(value), 4) for value in row]}
        for name, recall, count, row in zip(names, arrays["class_recall"], arrays["class_rows"], share, strict=True)
    ]
    return {"rows": rows, "columns": names + (["any other"] if others else [])}
