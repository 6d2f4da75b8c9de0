"""What each position of an image says by itself: with the mean as pooling, the mean of it is the embedding."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from models.resnet import ResNet
from models.vit import ViT

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), np.uint8)
VIT = dict(image_size=8, patch_size=4, channels=1, width=8, layers=1, heads=2, embed_dim=6)
TOWERS = {
    "vit": ViT(**VIT),
    "resnet": ResNet(widths=(8, 8), blocks=(1, 1), image_size=8, channels=1, embed_dim=6, stem_stride=2),
    "attention": ViT(**VIT, pooling="attention"),
}


@pytest.mark.parametrize("name", TOWERS)
def test_the_mean_over_positions_is_the_embedding_where_the_mean_is_what_pools(name):
    tower, rng = TOWERS[name], np.random.default_rng(0)
    shapes = nn.unbox(jax.eval_shape(tower.init, jax.random.key(0), IMAGES))
    # Drawn here: a program that draws them takes longer to compile than the tower.
    params = jax.tree.map(lambda s: rng.normal(scale=0.3, size=s.shape).astype(np.float32), shapes)
    found = jax.jit(lambda params, images: tower.apply(params, images, capture=("dense",)))(params, IMAGES)
    assert found["dense"].shape == (2, 4, 6)
    same = np.allclose(found["dense"].mean(1), found["embedding"], atol=1e-5)
    assert same == (name != "attention") and np.ptp(found["dense"], axis=1).min() > 0
