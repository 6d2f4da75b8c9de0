"""Toy image-text models of other libraries with random weights, and what they make of images and token ids."""

import importlib.machinery
import json
import sys
import types

import numpy as np
import torch

EOS = 99
SIZES = dict(hidden_size=16, intermediate_size=37, num_hidden_layers=2, num_attention_heads=2)
TEXT = SIZES | dict(vocab_size=100, max_position_embeddings=7, bos_token_id=1, pad_token_id=0, eos_token_id=EOS)
VISION = SIZES | dict(patch_size=4)


def randomize(model):
    """Every parameter is random: zeros and ones would hide one that is left out."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in sorted(model.named_parameters()):
        scale = any(part in name for part in ("norm", "ln_")) and name.endswith("weight")
        parameter.data = (1.0 if scale else 0.0) + 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def clip(eos_id=EOS, image_size=12):
    from transformers import CLIPConfig, CLIPModel

    vision = VISION | dict(image_size=image_size)
    return randomize(CLIPModel(CLIPConfig(text_config=TEXT | dict(eos_token_id=eos_id), vision_config=vision, projection_dim=8)))


def siglip(image_size=12):
    from transformers import SiglipConfig, SiglipModel

    return randomize(SiglipModel(SiglipConfig(text_config=TEXT, vision_config=VISION | dict(image_size=image_size))))


def siglip2():
    from transformers import Siglip2Config, Siglip2Model

    return randomize(Siglip2Model(Siglip2Config(text_config=TEXT, vision_config=VISION | dict(num_patches=9))))


def open_clip():
    """The package; torchvision, which it names for its own image transforms alone, is not needed and stands in as empty modules."""
    if "torchvision" not in sys.modules:
        for name in ("", ".transforms", ".transforms.functional", ".ops", ".ops.misc", ".datasets"):
            module = _Anything(f"torchvision{name}")
            module.__path__, module.__spec__ = [], importlib.machinery.ModuleSpec(module.__name__, None)
            sys.modules[module.__name__] = module
    import open_clip

    return open_clip


class _Anything(types.ModuleType):
    """A module with a class for every name."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if f"{self.__name__}.{name}" in sys.modules:
            return sys.modules[f"{self.__name__}.{name}"]
        return type(name, (torch.nn.Module,), {value: value for value in ("NEAREST", "BILINEAR", "BICUBIC", "BOX", "HAMMING", "LANCZOS")})


OPEN_CLIP = {
    "plain": dict(embed_dim=8, text_cfg=dict(), vision_cfg=dict()),
    "quick": dict(embed_dim=8, quick_gelu=True, text_cfg=dict(), vision_cfg=dict()),
    "custom": dict(
        embed_dim=8, custom_text=True, init_logit_bias=-10,
        text_cfg=dict(
            no_causal_mask=True, proj_bias=True, pool_type="last", norm_kwargs=dict(eps=1e-6), act_kwargs=dict(approximate="tanh"),
        ),
        vision_cfg=dict(no_ln_pre=True),
    ),
}  # fmt: skip
TOY_TIMM = "vit_toy_patch4_siglip_12"
SIGLIP = dict(
    embed_dim=16, custom_text=True, init_logit_bias=-10, text_cfg=OPEN_CLIP["custom"]["text_cfg"],
    vision_cfg=dict(timm_model_name=TOY_TIMM, timm_model_pretrained=False, timm_pool="map", timm_proj="none"),
)  # fmt: skip


def sized(config):
    """A config at toy size."""
    text = dict(context_length=7, vocab_size=100, width=16, heads=2, layers=2) | config["text_cfg"]
    vision = config["vision_cfg"]
    if "timm_model_name" not in vision:
        vision = dict(image_size=12, patch_size=4, width=16, head_width=8, layers=2) | vision
    return config | dict(text_cfg=text, vision_cfg=vision)


def register_toy_timm(act_layer=None):
    """A timm tower of the SigLIP kind at toy size, under a name of its own."""
    open_clip()
    import timm
    from timm.models.vision_transformer import VisionTransformer

    def vit_toy_patch4_siglip_12(pretrained=False, **options):
        options = {k: v for k, v in options.items() if k in ("num_classes", "global_pool")}
        sizes = dict(img_size=12, patch_size=4, embed_dim=16, depth=2, num_heads=2, mlp_ratio=2.5, act_layer=act_layer)
        return VisionTransformer(class_token=False, **(dict(global_pool="map") | options), **sizes)

    vit_toy_patch4_siglip_12.__module__ = "timm.models.vision_transformer"
    timm.models.register_model(vit_toy_patch4_siglip_12)


def open_clip_model(config):
    config = dict(sized(config))
    module = open_clip()
    custom = config.pop("custom_text", False)
    return randomize((module.CustomTextCLIP if custom else module.CLIP)(**config))


def save_open_clip(model, config, folder, prefix=""):
    from safetensors.torch import save_file

    tensors = {prefix + name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    content = {"model_cfg": sized(config), "preprocess_cfg": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}}
    (folder / "open_clip_config.json").write_text(json.dumps(content))


def inputs(image_size=12, length=7):
    """Images, and token ids with one end of text at different places."""
    rng = np.random.default_rng(0)
    ids = rng.integers(3, EOS, (4, length))
    for row, place in enumerate((2, length - 1, 1, 3)):
        ids[row, place] = EOS
        ids[row, place + 1 :] = 0
    return rng.integers(0, 256, (4, image_size, image_size, 3), dtype=np.uint8), ids.astype(np.int32)


def embed(model, images, ids, mean, std):
    """Unit vectors of the reference."""
    pixels = torch.tensor((images / 255.0 - np.array(mean)) / np.array(std), dtype=torch.float32)
    tokens = torch.tensor(ids, dtype=torch.long)
    with torch.no_grad():
        if hasattr(model, "encode_image"):
            image = model.encode_image(pixels.permute(0, 3, 1, 2))
        else:
            image = model.get_image_features(pixel_values=pixels.permute(0, 3, 1, 2))
        text = model.encode_text(tokens) if hasattr(model, "encode_text") else model.get_text_features(input_ids=tokens)
    image, text = (getattr(z, "pooler_output", z) for z in (image, text))
    return [(z / z.norm(dim=-1, keepdim=True)).numpy() for z in (image, text)]


def big_vision_arrays():
    """A two-tower checkpoint of the size of `SIGLIP`, every array random."""
    shapes = {"t": (1,), "b": (1,), "img/embedding/kernel": (4, 4, 3, 16), "img/embedding/bias": (16,), "img/pos_embedding": (1, 9, 16)}
    shapes |= {"txt/Embed_0/embedding": (100, 16), "txt/pos_embedding": (1, 7, 16), "txt/head/kernel": (16, 16), "txt/head/bias": (16,)}
    for tower, hidden in (("img/Transformer", 40), ("txt/Encoder_0", 64)):
        for i in range(2):
            layer = f"{tower}/encoderblock_{i}"
            shapes |= _attention(layer) | _norm(f"{layer}/LayerNorm_0") | _norm(f"{layer}/LayerNorm_1") | _mlp(layer, hidden)
        shapes |= _norm(f"{tower}/encoder_norm")
    shapes |= {"img/MAPHead_0/probe": (1, 1, 16)} | _attention("img/MAPHead_0") | _norm("img/MAPHead_0/LayerNorm_0")
    shapes |= _mlp("img/MAPHead_0", 40)
    rng = np.random.default_rng(0)
    return {name: (float(name.endswith("scale")) + 0.3 * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}


def _attention(at):
    at = f"{at}/MultiHeadDotProductAttention_0"
    parts = {f"{at}/{part}/kernel": (16, 2, 8) for part in ("query", "key", "value")}
    parts |= {f"{at}/{part}/bias": (2, 8) for part in ("query", "key", "value")}
    return parts | {f"{at}/out/kernel": (2, 8, 16), f"{at}/out/bias": (16,)}


def _norm(at):
    return {f"{at}/scale": (16,), f"{at}/bias": (16,)}


def _mlp(at, hidden):
    at = f"{at}/MlpBlock_0"
    first = {f"{at}/Dense_0/kernel": (16, hidden), f"{at}/Dense_0/bias": (hidden,)}
    return first | {f"{at}/Dense_1/kernel": (hidden, 16), f"{at}/Dense_1/bias": (16,)}


def stacked(arrays):
    """The same with the layers of each tower under one name."""
    made = {name: array for name, array in arrays.items() if "encoderblock" not in name}
    for name in (name for name in arrays if "encoderblock_0" in name):
        made[name.replace("encoderblock_0", "encoderblock")] = np.stack([arrays[name], arrays[name.replace("block_0", "block_1")]])
    return made
