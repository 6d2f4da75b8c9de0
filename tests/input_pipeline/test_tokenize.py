"""The tokenizer says what it was given, and says it the same way every time."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers

from input_pipeline import tokenize, transforms

NAMES = ("alpha", "beta", "o with tilde")
TEXTS = [f"{script} {case} letter {name}" for script in ("latin", "greek") for case in ("small", "capital") for name in NAMES]


@pytest.fixture(scope="module")
def tokenizer():
    return tokenize.train_bpe(TEXTS, vocab_size=300)


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(blacklist_categories=("Cs",)), max_size=20))
def test_every_text_comes_back(tokenizer, text):
    normal = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()]).normalize_str(text)
    ids, mask = tokenizer([text], 200)
    if normal and not normal[0].isspace():
        normal = " " + normal  # the first word is written as any other
    assert tokenizer.decode(ids[0]) == normal or tokenizer.decode(ids[0]) == " " + normal
    assert ids[0, 0] == tokenizer.cls_id and ids[0][mask[0]][-1] == tokenizer.eos_id


def test_rows_are_marked_padded_and_cut(tokenizer):
    texts = ["latin small letter alpha", "", "greek capital letter o with tilde and more that does not fit"]
    ids, mask = tokenizer(texts, 9)
    assert ids.shape == mask.shape == (3, 9) and ids.dtype == np.int32 and mask.dtype == np.bool_
    whole, whole_mask = tokenizer(texts, 64)
    for row in range(3):
        count = int(min(whole_mask[row].sum(), 9))
        np.testing.assert_array_equal(mask[row], np.arange(9) < count)
        assert ids[row, 0] == tokenizer.cls_id and ids[row, count - 1] == tokenizer.eos_id
        np.testing.assert_array_equal(ids[row, : count - 1], whole[row, : count - 1])
        assert (ids[row, count:] == tokenizer.pad_id).all()
    assert ids[1].tolist()[:2] == [tokenizer.cls_id, tokenizer.eos_id] and mask[1].sum() == 2
    assert whole_mask[2].sum() > 9
    assert tokenizer([], 4)[0].shape == (0, 4)


def test_special_tokens_spelled_in_a_text_stay_text(tokenizer):
    for copy in (tokenizer, pickle.loads(pickle.dumps(tokenizer))):
        ids, _ = copy(["a <eot> <pad> b"], 64)
        inner = ids[0, 1 : (ids[0] == copy.eos_id).argmax()]
        assert len(inner) > 5 and (inner > copy.eos_id).all()
        assert copy.decode(ids[0]) == " a <eot> <pad> b"


def test_words_of_the_captions_become_single_tokens(tokenizer):
    ids, mask = tokenizer(["latin letter"], 16)
    assert mask.sum() == 4
    assert tokenizer.vocab_size == 300


def test_case_is_folded_unless_asked_otherwise(tokenizer):
    np.testing.assert_array_equal(tokenizer(["LATIN Letter"], 16)[0], tokenizer(["latin letter"], 16)[0])
    keeps = tokenize.train_bpe(TEXTS, vocab_size=300, lowercase=False)
    assert (keeps(["LATIN"], 16)[0] != keeps(["latin"], 16)[0]).any()


def test_a_saved_tokenizer_is_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokenizer.json", "tokenizer_settings.json"]
    loaded = tokenize.load(tmp_path)
    assert loaded.vocab_size == tokenizer.vocab_size
    for a, b in zip(loaded(TEXTS, 12), tokenizer(TEXTS, 12), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(FileNotFoundError):
        tokenize.load(tmp_path / "nowhere")


def test_the_same_texts_give_the_same_file_in_another_process(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    script = f"from input_pipeline import tokenize; tokenize.train_bpe({TEXTS!r}, vocab_size=300).save({str(tmp_path / 'other')!r})"
    (tmp_path / "other").mkdir()
    subprocess.run([sys.executable, "-c", script], check=True)
    assert (tmp_path / "tokenizer.json").read_bytes() == (tmp_path / "other" / "tokenizer.json").read_bytes()


def test_mistakes_name_the_key(tokenizer):
    with pytest.raises(ValueError, match="config.data.transforms.<view>.options.length to 2 or more"):
        tokenizer(["a"], 1)
    with pytest.raises(ValueError, match="config.data.tokenizer.options.vocab_size to 512 or more"):
        tokenize.train_bpe(TEXTS, vocab_size=100)
    with pytest.raises(ValueError, match="set config.data.tokenizer to"):
        transforms.tokenize(["a"], None, None)
