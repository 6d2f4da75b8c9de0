"""Losses by the name a config uses."""

from losses import infonce, matryoshka, sigmoid

LOSSES = {
    "infonce": infonce.infonce,
    "matryoshka": matryoshka.matryoshka,
    "sigmoid": sigmoid.sigmoid,
}
