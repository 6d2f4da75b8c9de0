"""Losses by the name a config uses."""

from losses import gist, infonce, matryoshka, sigmoid

LOSSES = {
    "gist": gist.gist,
    "infonce": infonce.infonce,
    "matryoshka": matryoshka.matryoshka,
    "sigmoid": sigmoid.sigmoid,
}
