"""Claims by the name of their method card."""

from claims import (
    S001_matryoshka_2d,
    S012_clim,
    S020_mi_mix,
    S037_gistembed,
    S042_m2_mix,
    S045_mochi,
    S057_llm2clip,
    S093_inverse_cloze,
    S101_retromae,
    S103_distilled_sentence_embedding,
    S109_starbucks,
    S110_structure_clip,
    S128_whitened_cse,
    X03_simcse,
    X04_matryoshka,
    X06_lit_slip,
)

CLAIMS = {
    "S001": S001_matryoshka_2d.CLAIM,
    "S012": S012_clim.CLAIM,
    "S020": S020_mi_mix.CLAIM,
    "S037": S037_gistembed.CLAIM,
    "S042": S042_m2_mix.CLAIM,
    "S045": S045_mochi.CLAIM,
    "S057": S057_llm2clip.CLAIM,
    "S093": S093_inverse_cloze.CLAIM,
    "S101": S101_retromae.CLAIM,
    "S103": S103_distilled_sentence_embedding.CLAIM,
    "S109": S109_starbucks.CLAIM,
    "S110": S110_structure_clip.CLAIM,
    "S128": S128_whitened_cse.CLAIM,
    "X03": X03_simcse.CLAIM,
    "X04": X04_matryoshka.CLAIM,
    "X06": X06_lit_slip.CLAIM,
}
