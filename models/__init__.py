"""Towers, poolings and the arrays they hand on, by the name a config uses."""

from models import pooling, resnet, text, vit

TOWERS = {
    "resnet": resnet.ResNet,
    "text": text.Text,
    "vit": vit.ViT,
}

POOLINGS = pooling.POOLINGS
