"""Towers of width 16, their inputs and parameters."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline.patches import padded
from models import TOWERS

OPTIONS = {
    "bert": dict(vocab_size=40, length=6, width=16, layers=2, heads=2, embed_dim=8),
    "decoder": dict(vocab_size=40, length=6, width=16, layers=2, heads=4, kv_heads=2, head_dim=6, embed_dim=8),
    "modernbert": dict(vocab_size=40, length=6, width=16, layers=2, heads=2, embed_dim=8, window=1),
    "naflex": dict(grid=3, patch_size=2, channels=2, width=16, layers=2, heads=2, embed_dim=8),
    "text": dict(vocab_size=40, length=6, width=16, layers=2, heads=2, embed_dim=8),
    "vit": dict(image_size=8, patch_size=4, channels=2, width=16, layers=2, heads=2, embed_dim=8),
    "resnet": dict(image_size=8, channels=2, widths=(8, 16), blocks=(1, 1), stem_stride=1, groups=4, embed_dim=8),
    "vectors": dict(width=16, pooling="adapted", embed_dim=8),
}
TEXTS = ("bert", "decoder", "modernbert", "text")
IMAGES = ("naflex", "resnet", "vit")
ATTENTIVE = (*TEXTS, "naflex", "vit")
EOS = 2


def tower(name, **changes):
    return TOWERS[name](**(OPTIONS[name] | changes))


def texts(rows=4, length=6, seed=0):
    """Ids that end in the end-of-text token, and the mask of what is kept; later ids are 0."""
    rng = np.random.default_rng(seed)
    ends = rng.integers(1, length, rows)
    ends[0] = length - 1
    ids = rng.integers(3, 40, (rows, length)).astype(np.int32)
    place = np.arange(length)[None]
    ids = np.where(place == ends[:, None], EOS, np.where(place > ends[:, None], 0, ids)).astype(np.int32)
    return jnp.asarray(ids), jnp.asarray(place <= ends[:, None])


def images(rows=4, size=8, channels=2, seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 256, (rows, size, size, channels), np.uint8))


def patches(rows=4, budget=6, seed=0):
    """Images of several shapes as patches, and the mask of what is no padding."""
    rng = np.random.default_rng(seed)
    grids = (((2, 3), (4, 1), (1, 5), (3, 2)) * rows)[:rows]
    made = [padded(rng.integers(0, 256, (2 * down, 2 * right, 2), np.uint8), 2, budget) for down, right in grids]
    return tuple(jnp.asarray(np.stack(arrays)) for arrays in zip(*made, strict=True))


def inputs(name, rows=4, seed=0):
    """What a tower reads and its mask, if it takes one."""
    if name in TEXTS:
        return texts(rows, seed=seed)
    if name == "vectors":
        return jnp.asarray(np.random.default_rng(seed).standard_normal((rows, 16)), jnp.float32), None
    return patches(rows, seed=seed) if name == "naflex" else (images(rows, seed=seed), None)


def keys(rows=4, seed=0):
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(rows))


def init(module, *args, seed=0, **options):
    """Parameters of a module whose every leaf is random: zeros and ones would hide a bias or scale that is left out. Compiles nothing."""
    variables = nn.unbox(jax.eval_shape(lambda: module.init(jax.random.key(0), *args, **options)))
    shapes = variables["params"] if variables else {}
    rng = np.random.default_rng(seed)
    draw = lambda path, s: jnp.asarray((path[-1].key == "scale") + 0.3 * rng.standard_normal(s.shape), s.dtype)
    return jax.tree_util.tree_map_with_path(draw, shapes)
