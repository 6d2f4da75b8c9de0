"""The benchmark of scores, with stand-ins for its peers."""

import json

import numpy as np
import pytest
from absl import flags

from benchmarks import evaluate, measure, peers

SIZES = dict(images=20, captions=60, rows=200, embedding_width=8, evaluate_rounds=1)


@pytest.fixture
def flag_values():
    saved = {name: flags.FLAGS[name].value for name in SIZES}
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    for name, value in SIZES.items():
        setattr(flags.FLAGS, name, value)
    yield flags.FLAGS
    for name, value in saved.items():
        setattr(flags.FLAGS, name, value)


def recalls(images, texts, ks, shift=0.0):
    """What CLIP_benchmark returns, by sorting."""
    owner = np.repeat(np.arange(len(images)), texts.shape[1])
    scores = (texts / np.linalg.norm(texts, axis=-1, keepdims=True)).reshape(-1, images.shape[1]) @ images.T
    to_image, to_text = np.argsort(-scores, axis=1), np.argsort(-scores.T, axis=1)
    found = {}
    for k in ks:
        found[f"image_retrieval_recall@{k}"] = np.mean([own in row[:k] for own, row in zip(owner, to_image, strict=True)])
        found[f"text_retrieval_recall@{k}"] = np.mean([i in owner[row[:k]] for i, row in enumerate(to_text)]) + shift
    return lambda: found


def test_it_states_both_ratios(flag_values, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    monkeypatch.setattr(measure, "machine", dict)
    monkeypatch.setattr(peers, "clip_benchmark_recalls", recalls)
    monkeypatch.setattr(peers, "mteb_classifier", lambda rows, labels, test_rows: lambda: np.zeros(len(test_rows), int))
    evaluate.main([])
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last == json.loads((tmp_path / "evaluate.json").read_text())
    for part in (last, last["linear_probe"]):
        assert {"question", "ratio", "ours", "peer", "peer_name", "unit"} <= set(part) and part["ratio"] == part["peer"] / part["ours"]
    assert last["queries_apart"] == {"img2txt": 0, "txt2img": 0}
    assert last["linear_probe"]["accuracy"]["MTEB"] == 0.1 < last["linear_probe"]["accuracy"]["tandem"]


def test_arms_that_disagree_stop_it(flag_values, monkeypatch):
    monkeypatch.setattr(peers, "clip_benchmark_recalls", lambda *given: recalls(*given, shift=0.3))
    arms = evaluate.retrieval_arms()
    with pytest.raises(ValueError, match=r"differ by .*'img2txt': 6\.0.* queries, so the arms do not compute the same"):
        evaluate.check_recalls({name: arm() for name, arm in arms.items()})
