"""Claims by the name of their method card."""

from claims import S001_matryoshka_2d, S012_clim, S109_starbucks, S110_structure_clip, X03_simcse, X04_matryoshka

CLAIMS = {
    "S001": S001_matryoshka_2d.CLAIM,
    "S012": S012_clim.CLAIM,
    "S109": S109_starbucks.CLAIM,
    "S110": S110_structure_clip.CLAIM,
    "X03": X03_simcse.CLAIM,
    "X04": X04_matryoshka.CLAIM,
}
