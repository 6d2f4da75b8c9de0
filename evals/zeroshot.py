"""Classification by class prompts, without training: the class whose prompts lie nearest to an image."""

from collections.abc import Callable, Mapping

import numpy as np

from evals import gallery, metrics
from evals.evaluation import Evaluation


def zeroshot(encode: Mapping[str, Callable], data, *, templates=(), confusion_classes: int = 32) -> Evaluation:
    """Each image takes the class with the nearest averaged prompt embedding.

    Args:
        encode: functions of the views `image` and `text`.
        data: a source with `classification()`.
        templates: prompts with "{}" for the class name; empty takes the task's own prompts: a list for each class, or templates.
        confusion_classes: the most frequent classes that the gallery's confusion matrix keeps apart; 0 leaves the gallery out.

    Returns:
        `accuracy@1` (primary; among equals the first class), `accuracy@5` (absent under 5 classes), `accuracy@1_pessimistic`,
        `mean_per_class_recall` over the classes that occur, `cross_entropy` in nats, `tie_rate`, `accuracy@1_chance` and `count/classes`.

    Raises:
        ValueError: a template without "{}", a label without a class, or embeddings that are not finite.

    Source: Radford et al. 2021, arXiv:2103.00020.
    """
    similarity, labels, weights = similarities(encode, data, templates)
    task = data.classification()
    values = metrics.classification_metrics(similarity, labels)
    values |= {"accuracy@1_chance": 1 / len(weights), "count/classes": float(len(weights))}
    shown = _confusion(labels, similarity.argmax(axis=1), task.class_names, confusion_classes) if confusion_classes else {}
    items = (similarity.argmax(axis=1) == labels).astype(np.float64)
    return Evaluation("accuracy@1", values, len(labels), shown, items)


def similarities(encode: Mapping[str, Callable], data, templates=()) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What zero-shot classification decides by.

    Args:
        encode: functions of the views `image` and `text`.
        data: a source with `classification()`.
        templates: prompts with "{}" for the class name; empty takes the task's own.

    Returns:
        Cosines of images and classes float32 [N C], the class of each image [N], and the unit row of each class [C d].

    Raises:
        ValueError: a template without "{}", a label without a class, or embeddings that are not finite.
    """
    task = data.classification()
    labels = _check_labels(np.asarray(task.labels, np.int64), len(task.images), len(task.class_names))
    weights = _weights(encode["text"], _prompts(task, tuple(templates)))
    images = metrics.unit(encode["image"](task.images), "image embeddings")
    return metrics.scores(images, weights), labels, weights


def _prompts(task, templates) -> list[list[str]]:
    """The prompts of each class."""
    if task.prompts is not None and not templates:
        return [list(some) for some in task.prompts]
    templates = templates or tuple(task.templates)
    wrong = [template for template in templates if "{}" not in template]
    if wrong or not templates:
        raise ValueError(f"templates need a {{}} for the class name, got {wrong or 'none'}; set config.evals.<label>.options.templates.")
    return [[template.replace("{}", name) for template in templates] for name in task.class_names]


def _weights(encode_text: Callable, prompts: list[list[str]]) -> np.ndarray:
    """One row per class; lists may differ in length, and a class averages its own."""
    rows = np.asarray(encode_text([prompt for some in prompts for prompt in some]))
    each = np.split(rows, np.cumsum([len(some) for some in prompts])[:-1])
    return np.concatenate([metrics.class_weights(some[None]) for some in each])


def _check_labels(labels: np.ndarray, images: int, classes: int) -> np.ndarray:
    if labels.shape != (images,) or not images or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels of shape {labels.shape} do not name one of {classes} classes for each of {images} images.")
    return labels


def _confusion(labels: np.ndarray, predicted: np.ndarray, class_names, most: int) -> dict[str, np.ndarray]:
    """Counts `confusion` [R R+1] of label by prediction for the R most frequent classes; the last column is any other class."""
    rows = np.bincount(labels, minlength=len(class_names))
    kept = np.argsort(-rows, kind="stable")[: min(most, np.count_nonzero(rows))]
    place = np.full(len(class_names), len(kept))
    place[kept] = np.arange(len(kept))
    table = np.zeros((len(kept) + 1, len(kept) + 1), np.int64)
    np.add.at(table, (place[labels], place[predicted]), 1)
    return {
        "confusion": table[:-1],
        "class_names": gallery.names([class_names[c] for c in kept]),
        "class_recall": metrics.per_class_recall(predicted == labels, labels, len(class_names))[kept],
        "class_rows": rows[kept],
    }
