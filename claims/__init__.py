"""Claims by the name of their method card."""

from claims import (
    S001_matryoshka_2d,
    S012_clim,
    S093_inverse_cloze,
    S101_retromae,
    S109_starbucks,
    S110_structure_clip,
    X03_simcse,
    X04_matryoshka,
)

CLAIMS = {
    "S001": S001_matryoshka_2d.CLAIM,
    "S012": S012_clim.CLAIM,
    "S093": S093_inverse_cloze.CLAIM,
    "S101": S101_retromae.CLAIM,
    "S109": S109_starbucks.CLAIM,
    "S110": S110_structure_clip.CLAIM,
    "X03": X03_simcse.CLAIM,
    "X04": X04_matryoshka.CLAIM,
}
