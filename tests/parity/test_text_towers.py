"""Text encoders of transformers, in and out, against the library itself: random weights, odd lengths, padding."""

import json

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import interop  # noqa: E402
from core.paths import by_path  # noqa: E402
from interop import hf, mapping, tensors  # noqa: E402
from models import TOWERS, position  # noqa: E402

pytestmark = pytest.mark.parity
TOLERANCE = 1e-5  # float32 through a few layers
LENGTHS = (9, 1, 6, 3)
SIZES = dict(vocab_size=50, hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=16)
DECODER = SIZES | dict(num_key_value_heads=2)
SCALED = dict(rope_theta=500.0, factor=4.0, original_max_position_embeddings=4)
MODELS = {
    "bert": ("Bert", SIZES),
    "bert, tanh gelu": ("Bert", SIZES | dict(hidden_act="gelu_new", layer_norm_eps=1e-6)),
    "roberta": ("Roberta", SIZES | dict(pad_token_id=1, type_vocab_size=1)),
    "xlm-roberta": ("XLMRoberta", SIZES | dict(pad_token_id=1, type_vocab_size=1, layer_norm_eps=1e-5)),
    "mpnet": ("MPNet", SIZES),
    "distilbert": ("DistilBert", dict(vocab_size=50, dim=24, hidden_dim=40, n_layers=2, n_heads=4, max_position_embeddings=16)),
    "modernbert": ("ModernBert", SIZES | dict(pad_token_id=0, num_hidden_layers=5, local_attention=4)),
    "modernbert, global": ("ModernBert", SIZES | dict(pad_token_id=0, layer_types=["full_attention"] * 3)),
    "qwen2": ("Qwen2", DECODER),
    "qwen3": ("Qwen3", DECODER | dict(head_dim=8, rope_parameters=SCALED | dict(rope_type="yarn"))),
    "llama": ("Llama", DECODER | dict(rope_parameters=SCALED | dict(rope_type="llama3", low_freq_factor=1.0, high_freq_factor=4.0))),
    "llama, linear": ("Llama", SIZES | dict(rope_parameters=dict(rope_type="linear", rope_theta=500.0, factor=2.0))),
    "mistral": ("Mistral", DECODER | dict(sliding_window=3)),
}


def made(name):
    """A model every parameter of which is random: zeros and ones would hide one that is left out."""
    kind, sizes = MODELS[name]
    config = getattr(transformers, f"{kind}Config")(**sizes)
    model = getattr(transformers, f"{kind}Model")(config).eval()
    generator = torch.Generator().manual_seed(0)
    for path, parameter in sorted(model.named_parameters()):
        scale = "norm" in path.lower() and path.endswith("weight")
        parameter.data = (1.0 if scale else 0.0) + 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def texts(side="right"):
    """Ids and the mask of what is kept. The ids 0 and 1, which some pad with, are padding."""
    length = max(LENGTHS)
    place = np.arange(length)[None] if side == "right" else np.arange(length)[None, ::-1]
    mask = place < np.array(LENGTHS)[:, None]
    return np.random.default_rng(0).integers(2, 50, mask.shape).astype(np.int32), mask


def reference(model, ids, mask):
    """Last hidden states of the library."""
    pad = getattr(model.config, "pad_token_id", None) or 0
    filled = torch.as_tensor(np.where(mask, ids, pad), dtype=torch.long)
    with torch.no_grad():
        return model(input_ids=filled, attention_mask=torch.as_tensor(mask, dtype=torch.long)).last_hidden_state.numpy()


@pytest.fixture(scope="module", params=MODELS)
def pair(request, tmp_path_factory):
    """A model of the library and what is read of its folder."""
    model, folder = made(request.param), tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return model, folder, interop.read(folder)


def states(imported, ids, mask, **changes):
    entry = imported.model["towers"]["text"]
    tower = TOWERS[entry["name"]](**(entry["options"] | changes))
    apply = jax.jit(lambda params, ids, mask: tower.apply({"params": params}, ids, mask, capture=("tokens",)))
    return {name: np.asarray(array) for name, array in apply(imported.params["towers_text"], ids, mask).items()}


def test_states_and_embeddings_are_the_library_s(pair):
    model, _, imported = pair
    ids, mask = texts()
    expected = reference(model, ids, mask)
    found = states(imported, ids, mask)
    np.testing.assert_allclose(found["tokens"][mask], expected[mask], rtol=0, atol=TOLERANCE)
    last = mask.sum(1) - 1
    pooled = expected[np.arange(4), last]
    if imported.model["towers"]["text"]["options"]["pooling"] == "mean":
        pooled = (expected * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    np.testing.assert_allclose(found["embedding"], pooled, rtol=0, atol=TOLERANCE)
    assert np.ptp(pooled, axis=0).min() > 1e-2, "rows must differ for the comparison to say something"


def test_longer_padding_changes_nothing(pair):
    _, _, imported = pair
    ids, mask = texts()
    wider = lambda a: np.pad(a, ((0, 0), (0, 3)))
    np.testing.assert_allclose(
        states(imported, wider(ids), wider(mask))["embedding"], states(imported, ids, mask)["embedding"], rtol=0, atol=TOLERANCE
    )


def test_every_tensor_is_used_and_written_back(pair):
    model, folder, imported = pair
    original = {name: array for name, array in tensors.read(folder).items() if "pooler" not in name}
    assert sorted(imported.used) == sorted(original)
    family = hf.FAMILIES[model.config.model_type]
    written = mapping.write(family.rules(imported.model), {p: a for p, a in by_path(imported.params).items() if "towers" in p}, "model")
    assert sorted(written) == sorted(original)
    for name, array in original.items():
        np.testing.assert_array_equal(written[name], array)


def test_the_library_reads_the_config_that_is_written(pair, tmp_path):
    model, folder, imported = pair
    config = hf.FAMILIES[model.config.model_type].config(imported.model)
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tensors.write(tmp_path / "model.safetensors", {name: a for name, a in tensors.read(folder).items() if "pooler" not in name})
    again = transformers.AutoModel.from_pretrained(tmp_path).eval()
    ids, mask = texts()
    expected, found = (reference(m, ids, mask)[mask] for m in (model, again))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["qwen3", "llama", "mistral", "roberta", "mpnet"])
def test_left_padding_is_as_right(name, tmp_path):
    """Positions are relative, or count kept tokens."""
    made(name).save_pretrained(tmp_path)
    imported = interop.read(tmp_path)
    ids, mask = texts("left")
    moved = np.stack([np.roll(row, n) for row, n in zip(ids, LENGTHS, strict=True)])  # the last n ids come first
    left, right = states(imported, ids, mask), states(imported, moved, texts("right")[1])
    np.testing.assert_allclose(left["embedding"], right["embedding"], rtol=0, atol=2 * TOLERANCE)


def test_distances_fall_in_the_library_s_buckets():
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    place = torch.arange(600)
    expected = MPNetEncoder.relative_position_bucket(place[None, :] - place[:, None], num_buckets=32)
    np.testing.assert_array_equal(position.relative_buckets(600), expected.numpy())
