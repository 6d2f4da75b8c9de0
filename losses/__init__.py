"""Losses by the name a config uses."""

from losses import gist, infonce, m2_mix, matryoshka, mi_mix, mochi, sigmoid, simclr

LOSSES = {
    "gist": gist.gist,
    "infonce": infonce.infonce,
    "m2_mix": m2_mix.m2_mix,
    "matryoshka": matryoshka.matryoshka,
    "mi_mix": mi_mix.mi_mix,
    "mochi": mochi.mochi,
    "sigmoid": sigmoid.sigmoid,
    "simclr": simclr.simclr,
}
