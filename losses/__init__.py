"""Losses by the name a config uses."""

from losses import (
    bag_of_words,
    clim,
    gist,
    infonce,
    m2_mix,
    masked_language,
    matryoshka,
    matryoshka_2d,
    mi_mix,
    mochi,
    rank_distill,
    score_distill,
    sigmoid,
    simclr,
    starbucks,
    structure_clip,
)

LOSSES = {
    "bag_of_words": bag_of_words.bag_of_words,
    "clim": clim.clim,
    "gist": gist.gist,
    "infonce": infonce.infonce,
    "m2_mix": m2_mix.m2_mix,
    "masked_language": masked_language.masked_language,
    "matryoshka": matryoshka.matryoshka,
    "matryoshka_2d": matryoshka_2d.matryoshka_2d,
    "mi_mix": mi_mix.mi_mix,
    "mochi": mochi.mochi,
    "rank_distill": rank_distill.rank_distill,
    "score_distill": score_distill.score_distill,
    "sigmoid": sigmoid.sigmoid,
    "simclr": simclr.simclr,
    "starbucks": starbucks.starbucks,
    "structure_clip": structure_clip.structure_clip,
}
