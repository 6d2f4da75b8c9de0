"""Evaluators by the name a config uses."""

from evals import bitext, clustering, held_out_loss, image_text_retrieval, pair_classification, ranking, sts, zeroshot

EVALUATORS = {
    "bitext": bitext.bitext,
    "clustering": clustering.clustering,
    "held_out_loss": held_out_loss.held_out_loss,
    "image_text_retrieval": image_text_retrieval.image_text_retrieval,
    "pair_classification": pair_classification.pair_classification,
    "ranking": ranking.ranking,
    "sts": sts.sts,
    "zeroshot": zeroshot.zeroshot,
}
