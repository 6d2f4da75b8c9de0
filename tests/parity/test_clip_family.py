"""Image-text models of transformers and open_clip, in and out, against the libraries themselves."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

torch = pytest.importorskip("torch")

import interop  # noqa: E402
from interop import export, resize, timm  # noqa: E402
from models import dual  # noqa: E402
from tests.parity import clip_models as reference  # noqa: E402

pytestmark = pytest.mark.parity
TOLERANCE = 1e-5  # float32 through a few layers


def ours(imported, images, ids):
    model = dual.build(ConfigDict(imported.model))
    out = jax.jit(lambda params, batch: model.apply({"params": params}, batch))(imported.params, {"image": images, "text": ids})
    return out


def check(model, imported, image_size=12, length=7):
    """Embeddings, scale and bias are the reference's."""
    images, ids = reference.inputs(image_size, length)
    options = imported.model["towers"]["image"]["options"]
    expected = reference.embed(model, images, ids, options["pixel_mean"], options["pixel_std"])
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
}


@pytest.mark.parametrize("name", HF)
def test_transformers(name, tmp_path):
    kind = name.split(",")[0]
    model = getattr(reference, kind)(**HF[name])
    model.save_pretrained(tmp_path)
    length = 5 if kind == "clip" else 7  # a causal tower may read less than its table holds
    check(model, interop.read(tmp_path), HF[name].get("image_size", 12), length)


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


def exported(imported, format, folder):
    """The model in the library that the format is for, opened from what was written."""
    export.write(imported, folder, format)
    if format == "open_clip":
        return reference.open_clip().create_model(f"local-dir:{folder}").eval()
    import transformers

    return getattr(transformers, {"hf_clip": "CLIPModel", "hf_siglip": "SiglipModel"}[format]).from_pretrained(folder).eval()


@pytest.mark.parametrize(
    "kind, format",
    [
        ("clip", "hf_clip"),
        ("clip, largest id", "hf_clip"),
        ("clip", "open_clip"),
        ("clip, largest id", "open_clip"),
        ("siglip", "hf_siglip"),
    ],
)
def test_what_transformers_wrote_goes_out_again(kind, format, tmp_path):
    model = getattr(reference, kind.split(",")[0])(**HF[kind])
    model.save_pretrained(tmp_path / "in")
    imported = interop.read(tmp_path / "in")
    back = exported(imported, format, tmp_path / "out")
    check(back, interop.read(tmp_path / "out"))
    same_vectors(model, back, imported)
    golden = np.load(tmp_path / "out" / "golden.npz", allow_pickle=False)
    options = imported.model["towers"]["image"]["options"]
    z = reference.embed(back, golden["images"], golden["ids"], options["pixel_mean"], options["pixel_std"])
    np.testing.assert_allclose(z[0], golden["image_vectors"], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(z[1], golden["text_vectors"], rtol=0, atol=TOLERANCE)


def same_vectors(model, other, imported):
    images, ids = reference.inputs()
    options = imported.model["towers"]["image"]["options"]
    pairs = zip(*(reference.embed(m, images, ids, options["pixel_mean"], options["pixel_std"]) for m in (model, other)), strict=True)
    for expected, found in pairs:
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name, format", [("plain", "open_clip"), ("custom", "open_clip"), ("quick", "hf_clip")])
def test_what_open_clip_wrote_goes_out_again(name, format, tmp_path):
    config = reference.OPEN_CLIP[name]
    model = reference.open_clip_model(config)
    (tmp_path / "in").mkdir()
    reference.save_open_clip(model, config, tmp_path / "in")
    imported = interop.read(tmp_path / "in")
    same_vectors(model, exported(imported, format, tmp_path / "out"), imported)


def test_big_vision_as_open_clip_reads_it(monkeypatch, tmp_path):
    reference.register_toy_timm("gelu_tanh")
    model = reference.open_clip_model(reference.SIGLIP)
    arrays = reference.big_vision_arrays()
    np.savez(tmp_path / "flat.npz", **arrays)
    from open_clip.convert import load_big_vision_weights

    load_big_vision_weights(model, str(tmp_path / "flat.npz"))
    np.savez(tmp_path / "scanned.npz", **{f"params/{name}": array for name, array in reference.stacked(arrays).items()})
    images, ids = reference.inputs()
    expected = reference.embed(model, images, ids, (0.5,), (0.5,))
    for name, count in (("flat.npz", len(arrays)), ("scanned.npz", len(reference.stacked(arrays)))):
        imported = interop.read(tmp_path / name)
        out = ours(imported, images, ids)
        assert len(imported.used) == count
        np.testing.assert_allclose(out["z_image"], expected[0], rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(out["z_text"], expected[1], rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(out["logit_bias"], arrays["b"][0], rtol=1e-6)


def test_a_resized_position_table_is_open_clip_s():
    reference.open_clip()
    from open_clip.model import resize_pos_embed

    table = np.random.default_rng(0).standard_normal((1 + 49, 8)).astype(np.float32)
    for side in (5, 7, 12):
        state = {"visual.positional_embedding": torch.tensor(table)}
        visual = type("Visual", (), {"grid_size": (side, side)})
        resize_pos_embed(state, type("Model", (), {"visual": visual}), interpolation="bicubic", antialias=True)
        found = resize.grid(table[None], side, first=1)[0]
        np.testing.assert_allclose(found, state["visual.positional_embedding"].numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(40, 30), (31, 53), (12, 12)])
@pytest.mark.parametrize("crop, kernel", [(True, "bicubic"), (False, "bilinear")])
def test_images_are_prepared_as_the_new_folder_says(crop, kernel, size, tmp_path):
    """transformers' own image processor, from the written file, makes of a photograph what our transform and tower make of it."""
    from PIL import Image
    from transformers import AutoImageProcessor

    from input_pipeline.image import resize as to_size

    reference.clip().save_pretrained(tmp_path / "in")
    imported = interop.read(tmp_path / "in")
    assert imported.transforms["image"]["options"] == {"height": 12, "width": 12, "crop": True}
    imported.transforms["image"]["options"] |= {"crop": crop, "kernel": kernel}
    export.write(imported, tmp_path / "out", "hf_clip")
    back = interop.read(tmp_path / "out").transforms["image"]["options"]
    assert ("crop" in back) == crop and back["kernel"] == kernel
    photograph = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out", use_fast=False)
    theirs = processor(Image.fromarray(photograph), return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    options = imported.model["towers"]["image"]["options"]
    made = (to_size(photograph, 12, 12, crop, kernel) / 255.0 - options["pixel_mean"]) / options["pixel_std"]
    np.testing.assert_allclose(made, theirs, rtol=0, atol=1e-5)
