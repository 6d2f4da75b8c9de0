"""Losses by the name a config uses."""

from losses import infonce, sigmoid

LOSSES = {
    "infonce": infonce.infonce,
    "sigmoid": sigmoid.sigmoid,
}
