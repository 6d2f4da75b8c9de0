"""Evaluators by the name a config uses."""

from evals import (
    bitext,
    candidates,
    clustering,
    held_out_loss,
    image_text_retrieval,
    needle,
    noise,
    pair_classification,
    ranking,
    sts,
    zeroshot,
)

EVALUATORS = {
    "bitext": bitext.bitext,
    "candidates": candidates.candidates,
    "clustering": clustering.clustering,
    "held_out_loss": held_out_loss.held_out_loss,
    "image_text_retrieval": image_text_retrieval.image_text_retrieval,
    "needle": needle.needle,
    "noise": noise.noise,
    "pair_classification": pair_classification.pair_classification,
    "ranking": ranking.ranking,
    "sts": sts.sts,
    "zeroshot": zeroshot.zeroshot,
}
