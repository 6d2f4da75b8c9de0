"""Vocabularies from files: published ids, a copy that is the same, and files that cannot be."""

import json
import pickle

import numpy as np
import pytest

from core.config import ConfigError
from input_pipeline import batching, tokenize
from input_pipeline.tokenize import TOKENIZERS
from tests.input_pipeline.toys import config

TEXTS = ["Hello world", "", "Crème brûlée, 你好 👩‍👩‍👧 שלום", b"broken \xff bytes", "half \ud800 pair", "nul \x00 char", "word " * 50]


@pytest.fixture(scope="module")
def folders(shared_data, tmp_path_factory):
    """Real vocabularies, each in a folder as others keep them."""
    made = {}
    for name, kind, files in [
        ("bert", "BertTokenizer", {"vocab.txt": "bert_base_uncased_vocab.txt"}),
        ("roberta", "RobertaTokenizer", {"vocab.json": "roberta_vocab.json", "merges.txt": "roberta_merges.txt"}),
        ("clip", "", {"bpe_simple_vocab_16e6.txt.gz": "clip_bpe_simple_vocab_16e6.txt.gz"}),
        ("albert", "AlbertTokenizer", {"spiece.model": "albert_spiece.model"}),
    ]:
        made[name] = tmp_path_factory.mktemp(name)
        for target, source in files.items():
            (made[name] / target).symlink_to(shared_data / "tokenizers" / source)
        (made[name] / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    return made


@pytest.mark.parametrize(
    ("name", "text", "ids", "size"),
    [  # as the models' published examples print them
        ("bert", "Hello, my dog is cute", [101, 7592, 1010, 2026, 3899, 2003, 10140, 102], 30522),
        ("roberta", "Hello world", [0, 31414, 232, 2], 50265),
        ("roberta", " Hello world", [0, 20920, 232, 2], 50265),
        ("clip", "a photo of a cat", [49406, 320, 1125, 539, 320, 2368, 49407], 49408),
        ("albert", "Hello, my dog is cute", [2, 10975, 15, 51, 1952, 25, 10901, 3], 30000),
    ],
)
def test_published_ids(folders, name, text, ids, size):
    found = tokenize.load_folder(folders[name])
    assert found.rows([text]) == [ids] and found.vocab_size == size
    assert (found.cls_id, found.eos_id) == (ids[0], ids[-1])


@pytest.mark.parametrize("name", ["bert", "roberta", "clip", "albert"])
def test_copies_give_the_same_rows_and_every_text_has_one(folders, name, tmp_path):
    first = tokenize.load_folder(folders[name])
    first.save(tmp_path)
    ids, mask = first(TEXTS, 12)
    for copy in (tokenize.load(tmp_path), pickle.loads(pickle.dumps(first))):
        assert copy.vocab_size == first.vocab_size and copy.frame == first.frame
        for a, b in zip(copy(TEXTS, 12), (ids, mask), strict=True):
            np.testing.assert_array_equal(a, b)
    assert mask[1].sum() == 2 and mask[-1].all() and (ids[:, 0] == first.cls_id).all()
    assert (ids[mask] < first.vocab_size).all() and (ids[~mask] == first.pad_id).all()
    np.testing.assert_array_equal(ids[3], first(["broken \ufffd bytes"], 12)[0][0])
    np.testing.assert_array_equal(ids[4], first(["half \ufffd pair"], 12)[0][0])
    long = first.rows(["word " * 20_000], 12)
    assert long == [ids[-1].tolist()]  # 100,000 characters, cut as fifty words are
    assert first.decode(ids[0]).strip().lower() == "hello world"


@pytest.mark.parametrize("name", ["bert", "roberta", "albert"])
def test_an_exported_folder_reads_the_same(folders, name, tmp_path):
    first = tokenize.load_folder(folders[name])
    first.export_hf(tmp_path, 16)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]
    again = tokenize.load_folder(tmp_path)
    assert again.frame == first.frame and again.vocab_size == first.vocab_size
    assert again.rows(TEXTS[:3], 16) == first.rows(TEXTS[:3], 16)


def write(folder, **files):
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_what_stands_around_texts_comes_from_the_folder(tmp_path):
    tokenize.train_bpe(["a b"] * 9, vocab_size=262).export_hf(tmp_path, 8)
    assert tokenize.load_folder(tmp_path).frame == tokenize.Frame((1,), (2,), 0)
    facts = json.loads((tmp_path / "tokenizer_config.json").read_text())
    write(tmp_path, tokenizer_config__json=facts | {"add_bos_token": False, "add_eos_token": True})
    assert tokenize.load_folder(tmp_path).frame == tokenize.Frame((), (2,), 0)
    write(tmp_path, tokenizer_config__json=facts | {"pad_token": "<eot>"}, sentence_bert_config__json={"do_lower_case": True})
    found = tokenize.load_folder(tmp_path)
    assert found.pad_id == 2 and found.clean == "lower"
    nested = tmp_path / "0_Transformer"
    nested.mkdir()
    write(tmp_path, modules__json=[{"path": "0_Transformer"}])
    with pytest.raises(FileNotFoundError, match="0_Transformer holds no tokenizer; one of tokenizer.json, vocab.txt, .* found: nothing"):
        tokenize.load_folder(tmp_path)


def test_open_clip_folders_say_how_texts_are_cleaned(tmp_path):
    tokenize.train_bpe(["a b"] * 9, vocab_size=262).export_hf(tmp_path, 8)
    text = {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"clean": "canonicalize", "strip_sep_token": True}}
    write(tmp_path, open_clip_config__json={"model_cfg": {"text_cfg": text}})
    found = tokenize.load_folder(tmp_path)
    assert found.clean == "canonical" and found.frame.suffix == (0,)
    assert found.rows(["A, b!"]) == found.rows(["a b"])


def test_pieces_of_a_word_by_definition(tmp_path):
    write(tmp_path, vocab__txt="[PAD]\n[UNK]\n[CLS]\n[SEP]\nun\n##aff\n##able\nunaff\ncafe\n你\n好\n,\n")
    found = TOKENIZERS["wordpiece"](path=str(tmp_path))
    # Longest piece first; accents and case folded; CJK apart; a word that cannot be spelled, or is too long, unknown as a whole.
    assert found.rows(["unaffable Café,你好 unx " + "un" * 51]) == [[2, 7, 6, 8, 11, 9, 10, 1, 1, 3]]


@pytest.mark.parametrize(
    ("name", "files", "options", "message"),
    [
        ("wordpiece", {}, dict(path=""), "set config.data.tokenizer.options.path to its file or folder"),
        ("wordpiece", {"vocab__txt": "a\nb\n"}, {}, r"has no \[CLS\], \[SEP\], \[PAD\], \[UNK\] among its 2 pieces"),
        ("byte_bpe", {"vocab__json": {"a": 0}, "merges__txt": "#version: 0.2\n"}, {}, "has no <s>, </s>, <pad> among its 1 pieces"),
        ("clip", {}, dict(style="openai"), "style 'openai' is not one of hf, open_clip"),
        ("hf", {"tokenizer__json": "{}"}, {}, "is no tokenizer.json .* set config.data.tokenizer.options.path"),
        ("sentencepiece", {"spiece__model": "text"}, {}, "is no sentencepiece model .* set config.data.tokenizer.options.path"),
        ("sentencepiece", {}, dict(family="bert"), "family 'bert' is not among: albert, gemma"),
    ],
)
def test_a_file_that_cannot_be_names_the_key(tmp_path, name, files, options, message):
    options = dict(path=str(write(tmp_path, **files))) | options
    with pytest.raises(ConfigError, match=f"config.data.tokenizer: .*{message}"):
        batching.make_tokenizer(config(tokenizer=dict(name=name, options=options)), {})


def test_a_missing_file_is_named(tmp_path):
    for name in sorted(set(TOKENIZERS) - {"bpe"}):
        with pytest.raises(FileNotFoundError, match=f"{tmp_path}.*set config.data.tokenizer.options.path"):
            TOKENIZERS[name](path=str(tmp_path))


def test_no_padding_token_names_the_option(tmp_path):
    tokenize.train_bpe(["a b"] * 9, vocab_size=262).export_hf(tmp_path, 8)
    data = json.loads((tmp_path / "tokenizer.json").read_text()) | {"padding": None}
    write(tmp_path, tokenizer__json=data, tokenizer_config__json={}, special_tokens_map__json={})
    with pytest.raises(ValueError, match="names no padding token; set config.data.tokenizer.options.pad"):
        tokenize.load_folder(tmp_path)
    assert tokenize.load_folder(tmp_path, pad="<eot>").pad_id == 2


def test_a_sentencepiece_model_of_no_known_use_asks_for_its_class(tmp_path):
    write(tmp_path, spiece__model="x", tokenizer_config__json={"tokenizer_class": "Mystery"})
    with pytest.raises(ValueError, match="tokenizer_class 'Mystery', .* set tokenizer_class .* Albert, Gemma"):
        tokenize.load_folder(tmp_path)
