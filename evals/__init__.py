"""Evaluators by the name a config uses."""

from evals import held_out_loss, image_text_retrieval, zeroshot

EVALUATORS = {
    "held_out_loss": held_out_loss.held_out_loss,
    "image_text_retrieval": image_text_retrieval.image_text_retrieval,
    "zeroshot": zeroshot.zeroshot,
}
