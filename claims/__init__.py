"""Claims by the name of their method card."""

from claims import X04_matryoshka

CLAIMS = {
    "X04": X04_matryoshka.CLAIM,
}
