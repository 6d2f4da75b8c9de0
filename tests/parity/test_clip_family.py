"""Image-text models of transformers and open_clip, in and out, against the libraries themselves."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

torch = pytest.importorskip("torch")

import interop  # noqa: E402
from interop import timm  # noqa: E402
from models import dual  # noqa: E402
from tests.parity import clip_models as reference  # noqa: E402

pytestmark = pytest.mark.parity
TOLERANCE = 1e-5  # float32 through a few layers


def ours(imported, images, ids):
    model = dual.build(ConfigDict(imported.model))
    out = jax.jit(lambda params, batch: model.apply({"params": params}, batch))(imported.params, {"image": images, "text": ids})
    return out


def check(model, imported, image_size=12, length=7, patch=None):
    """Embeddings, scale and bias are the reference's."""
    images, ids = reference.inputs(image_size, length)
    options = imported.model["towers"]["image"]["options"]
    expected = reference.embed(model, images, ids, options["pixel_mean"], options["pixel_std"], patch)
    out = ours(imported, images, ids)
    for name, z in zip(("z_image", "z_text"), expected, strict=True):
        np.testing.assert_allclose(out[name], z, rtol=0, atol=TOLERANCE)
        assert np.ptp(z, axis=0).min() > 1e-3, "rows must differ for the comparison to say something"
    np.testing.assert_allclose(out["logit_scale"], model.logit_scale.exp().item(), rtol=1e-6)
    if getattr(model, "logit_bias", None) is not None:
        np.testing.assert_allclose(out["logit_bias"], model.logit_bias.item(), rtol=1e-6)
    names = [n for n in model.state_dict() if not n.endswith(("position_ids", "attn_mask"))]
    assert sorted(n.removeprefix("module.") for n in imported.used) == sorted(names)


HF = {
    "clip": dict(),
    "clip, largest id": dict(eos_id=2),
    "clip, edge": dict(image_size=14),
    "siglip": dict(),
    "siglip, edge": dict(image_size=14),
    "siglip2": dict(),
}


@pytest.mark.parametrize("name", HF)
def test_transformers(name, tmp_path):
    kind = name.split(",")[0]
    model = getattr(reference, kind)(**HF[name])
    model.save_pretrained(tmp_path)
    length = 5 if kind == "clip" else 7  # a causal tower may read less than its table holds
    check(model, interop.read(tmp_path), HF[name].get("image_size", 12), length, patch=4 if kind == "siglip2" else None)


@pytest.fixture
def toy_timm(monkeypatch):
    reference.register_toy_timm()
    monkeypatch.setitem(timm.SIZES, "toy", (16, 2, 2, 40))
    monkeypatch.setitem(timm.IMAGES, ("toy", 4), (12,))


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("name", reference.OPEN_CLIP)
def test_open_clip(name, prefix, tmp_path):
    config = reference.OPEN_CLIP[name]
    model = reference.open_clip_model(config)
    reference.save_open_clip(model, config, tmp_path, prefix)
    check(model, interop.read(tmp_path))


def test_open_clip_with_a_vision_tower_of_timm(toy_timm, tmp_path):
    model = reference.open_clip_model(reference.SIGLIP)
    reference.save_open_clip(model, reference.SIGLIP, tmp_path)
    check(model, interop.read(tmp_path))


def test_sizes_of_timm_are_timm_s():
    reference.open_clip()
    import timm as theirs

    for (size, patch), images in timm.IMAGES.items():
        for image in images:
            with torch.device("meta"):
                tower = theirs.create_model(f"vit_{size}_patch{patch}_siglip_{image}", num_classes=0)
            block = tower.blocks[0]
            found = (tower.embed_dim, len(tower.blocks), block.attn.num_heads, block.mlp.fc1.out_features)
            assert found == timm.SIZES[size]
            assert tower.patch_embed.img_size == (image, image) and tower.patch_embed.patch_size == (patch, patch)
            act, tanh = block.mlp.act, timm.activation(size, patch, image) == "gelu_tanh"
            assert ("Tanh" in type(act).__name__ or getattr(act, "approximate", None) == "tanh") == tanh, f"{size} {patch} {image}"
