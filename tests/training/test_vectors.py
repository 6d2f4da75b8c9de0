"""Training on top of vectors that a frozen tower made once is training through that tower."""

import jax.numpy as jnp
import numpy as np
import pytest

import retrieval
from core.config import ConfigError
from core.paths import by_path
from core.workdir import claim_config
from input_pipeline import stored, transforms
from input_pipeline.bad_records import BadRecord
from input_pipeline.sources.digits import Digits
from models import TOWERS
from tests import tiny
from tests.training.test_heads import STEADY

OPTIONS = dict(embed_dim=16, pooling="adapted", pooling_options=dict(blocks=2))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run through a frozen tower, and one on that tower's vectors."""
    folder = tmp_path_factory.mktemp("runs")
    live = tiny.config(evals={}, train__steps=4, **STEADY)
    live.checkpoint.best = None
    body = dict(vocab_size=live.model.towers.text.options.vocab_size, width=24, layers=1, heads=2, dropout=0.3)  # it stays off
    live.model.towers.text = dict(name="bert", options=OPTIONS | body)
    live.optimizer.freeze = ("^towers_text/(?!projection|pool)",)
    kept = tiny.config(evals={}, train__steps=4, **STEADY)
    kept.checkpoint.best = None
    kept.model.towers.text = dict(name="vectors", options=OPTIONS | dict(width=24))
    kept.data.transforms.text = dict(name="stored", options=dict(path=str(folder / "teacher"), teacher="bert"))
    claim_config(folder / "live", live)
    tiny.train(live, folder / "live")
    texts = sorted(set(Digits().texts()))
    stored.write(folder / "teacher", texts, means(folder / "live", texts), "bert")
    claim_config(folder / "kept", kept)
    tiny.train(kept, folder / "kept")
    return folder


def means(workdir, texts):
    """What the frozen tower of a run says of texts, at unit length."""
    encoder = retrieval.load(workdir)
    ready = transforms.tokenize(texts, None, encoder.imported().tokenizer, length=encoder.max_tokens("text"))
    params = {name: leaf for name, leaf in encoder.params["towers_text"].items() if name not in ("pool", "projection")}
    body = TOWERS["bert"](**encoder.config.model.towers.text.options.to_dict() | dict(pooling="mean", pooling_options={}, embed_dim=0))
    found = np.asarray(body.apply({"params": params}, jnp.asarray(ready[""]), jnp.asarray(ready["_mask"]))["embedding"])
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_the_same_parameters_come_out(runs):
    live, kept = (by_path(retrieval.load(runs / name).params) for name in ("live", "kept"))
    trained = ("towers_text/pool/", "towers_text/projection/")
    assert set(live) - set(kept) == {path for path in live if path.startswith("towers_text/") and not path.startswith(trained)}
    for path, leaf in kept.items():
        np.testing.assert_allclose(leaf, live[path], rtol=1e-4, atol=1e-6, err_msg=path)
    assert any(np.abs(leaf).max() > 1e-4 for path, leaf in kept.items() if path.endswith("block_0/fc_out/kernel")), "the adapter has moved"


def test_texts_are_looked_up_and_vectors_are_taken_as_they_are(runs):
    live, kept = (retrieval.load(runs / name) for name in ("live", "kept"))
    texts = sorted(set(Digits().texts()))
    expected = live.encode(texts, "text")
    np.testing.assert_allclose(kept.encode(texts, "text"), expected, atol=1e-5)
    np.testing.assert_allclose(kept.encode(means(runs / "live", texts), "text"), expected, atol=1e-5)
    np.testing.assert_allclose(kept.encode(texts[0], "text"), expected[0], atol=1e-5)


def test_what_a_view_of_vectors_does_not_do_is_said(runs):
    kept = retrieval.load(runs / "kept")
    assert kept.view_for(text=False) == "image" and not kept.reads_text("text")
    for call, message in (
        (lambda: kept.encode(["seven"]), "no tower reads text"),
        (lambda: kept.encode(["seven"], "text", prompt="a "), "view 'text' reads no texts"),
        (lambda: kept.dense(["seven"], "text"), "view 'text' does not read images"),
    ):
        with pytest.raises(ConfigError, match=message):
            call()
    with pytest.raises(ValueError, match=r"vectors of \(5,\), float32, but the tower takes \(24,\)"):
        kept.encode(np.ones((2, 5), np.float32), "text")
    with pytest.raises(BadRecord, match="nothing is stored of 'a tree'"):
        kept.encode(["a tree"], "text")
