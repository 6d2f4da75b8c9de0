"""Evaluators by the name a config uses. `from evals import evaluate` measures a run or a model, from a notebook or any program."""

from evals import (
    bitext,
    calibration,
    candidates,
    clustering,
    complexity,
    embedding_geometry,
    few_shot,
    held_out_loss,
    image_text_retrieval,
    knn,
    linear_probe,
    needle,
    noise,
    ood,
    pair_classification,
    ranking,
    sts,
    zeroshot,
)

EVALUATORS = {
    "bitext": bitext.bitext,
    "calibration": calibration.calibration,
    "candidates": candidates.candidates,
    "clustering": clustering.clustering,
    "complexity": complexity.complexity,
    "embedding_geometry": embedding_geometry.embedding_geometry,
    "few_shot": few_shot.few_shot,
    "held_out_loss": held_out_loss.held_out_loss,
    "image_text_retrieval": image_text_retrieval.image_text_retrieval,
    "knn": knn.knn,
    "linear_probe": linear_probe.linear_probe,
    "needle": needle.needle,
    "noise": noise.noise,
    "ood": ood.ood,
    "pair_classification": pair_classification.pair_classification,
    "ranking": ranking.ranking,
    "sts": sts.sts,
    "zeroshot": zeroshot.zeroshot,
}


def __getattr__(name: str):
    """`evaluate`, on first use: what measures imports this table."""
    if name == "evaluate":
        from evals.job import evaluate

        return evaluate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
