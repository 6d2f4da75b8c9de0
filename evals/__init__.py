"""Evaluators by the name a config uses."""

from evals import held_out_loss, image_text_retrieval, ranking, zeroshot

EVALUATORS = {
    "held_out_loss": held_out_loss.held_out_loss,
    "image_text_retrieval": image_text_retrieval.image_text_retrieval,
    "ranking": ranking.ranking,
    "zeroshot": zeroshot.zeroshot,
}
