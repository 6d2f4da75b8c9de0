"""Tokenizers from published vocabulary files: WordPiece, CLIP's and RoBERTa's byte pairs, sentencepiece models.

Each function begins with the captions of the run, as `TOKENIZERS` asks; a vocabulary that exists does not read them.
"""

import dataclasses
import gzip
import json
import os
import pathlib
from collections.abc import Iterable, Sequence

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from input_pipeline.tokenize.engines import Fast, SentencePiece
from input_pipeline.tokenize.tokenizer import FILE_NAME, Frame, Tokenizer, load

CLIP_MERGES = 49152 - 256 - 2  # of the published file; the rest of it is not used
CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def wordpiece(
    texts: Iterable[str] = (), *, path: str = "", lowercase: bool = True, strip_accents: bool | None = None, split_chinese: bool = True,
    cls: str = "[CLS]", sep: str = "[SEP]", pad: str = "[PAD]", unk: str = "[UNK]", mask: str = "[MASK]",
) -> Tokenizer:  # fmt: skip
    """BERT's WordPiece: words of more than 100 characters, or that the pieces cannot spell, become `unk`.

    Args:
        texts: not read.
        path: a `vocab.txt` with one piece a line, or its folder.
        lowercase: fold case first.
        strip_accents: None does as `lowercase` does.
        split_chinese: every CJK character is a word.
        cls, sep, pad, unk, mask: names of the special pieces.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a special piece that the file lacks.
    """
    file = find(path, "vocab.txt")
    lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")  # splitlines would cut at more than these
    vocab = {piece: i for i, piece in enumerate(lines)}
    check_pieces((cls, sep, pad, unk), vocab, file)
    inner = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token=unk, max_input_chars_per_word=100))
    inner.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=split_chinese, strip_accents=strip_accents, lowercase=lowercase
    )
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece(prefix="##")
    return framed(inner, (cls,), (sep,), pad, also=(unk, mask))


def byte_bpe(
    texts: Iterable[str] = (), *, path: str = "", add_prefix_space: bool = False, cls: str = "<s>", sep: str = "</s>", pad: str = "<pad>",
    unk: str = "<unk>", mask: str = "<mask>",
) -> Tokenizer:  # fmt: skip
    """Byte pairs as in RoBERTa and CodeT5: every text can be written, and a space belongs to the word that follows it.

    Args:
        texts: not read.
        path: a folder with `vocab.json` and `merges.txt`.
        add_prefix_space: the first word is written as any other.
        cls, sep, pad, unk, mask: names of the special pieces; an empty `cls` or `sep` leaves it out.

    Raises:
        FileNotFoundError: no such files.
        ValueError: a special piece that the vocabulary lacks.
    """
    vocab, merges = _vocab_and_merges(path)
    check_pieces([name for name in (cls, sep, pad) if name], vocab, path)
    inner = tokenizers.Tokenizer(models.BPE(vocab, merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    inner.decoder = decoders.ByteLevel()
    return framed(inner, (cls,) if cls else (), (sep,) if sep else (), pad, also=(unk, mask))


def clip(texts: Iterable[str] = (), *, path: str = "", style: str = "open_clip", clean: str = "open_clip") -> Tokenizer:
    """CLIP's byte pairs. A text that spells a special token becomes that token.

    Args:
        texts: not read.
        path: `bpe_simple_vocab_16e6.txt.gz`, or a folder with it or with `vocab.json` and `merges.txt`.
        style: `open_clip` cleans texts in Python and pads with 0; `hf` composes accents, folds case and pads with the last token.
            They differ in texts with broken encodings, HTML, curly quotes and the like, which only the former mends.
        clean: for open_clip, one of `open_clip`, `open_clip_cased`, `canonical`.

    Raises:
        FileNotFoundError: no such files.
        ValueError: another style.
    """
    if style not in ("open_clip", "hf"):
        raise ValueError(f"style {style!r} is not one of hf, open_clip; set config.data.tokenizer.options.style to one of them.")
    packed = [p for p in [_path(path), *_path(path).glob("*.gz")] if p.suffix == ".gz"]
    vocab, merges = _clip_file(packed[0]) if packed else _vocab_and_merges(path)
    start, end = list(vocab)[-2:] if packed else ("<|startoftext|>", "<|endoftext|>")
    check_pieces((start, end), vocab, path)
    inner = tokenizers.Tokenizer(models.BPE(vocab, merges, end_of_word_suffix="</w>", unk_token=end))
    # Without regard to case: to open_clip, 'ſ (long s) ends a word as 's does.
    words = Regex(f"(?i:{CLIP_WORDS})" if style == "open_clip" else CLIP_WORDS)
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=style == "hf")]
    )
    inner.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace("</w>", " ")])
    if style == "hf":
        inner.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
        return framed(inner, (start,), (end,), end)
    made = framed(inner, (start,), (end,), end)
    return Tokenizer(made.engine, dataclasses.replace(made.frame, pad_id=0), clean)


@dataclasses.dataclass(frozen=True)
class Family:
    """How a family of models uses its sentencepiece vocabulary: names of pieces, and how texts are cleaned."""

    prefix: tuple[str, ...]
    suffix: tuple[str, ...]
    pad: str
    clean: str = "none"
    fairseq: bool = False
    split_commas: bool = False


FAMILIES = {
    "albert": Family(("[CLS]",), ("[SEP]",), "<pad>", "albert", split_commas=True),
    "gemma": Family(("<bos>",), (), "<pad>"),
    "siglip": Family((), ("</s>",), "</s>", "siglip"),
    "siglip2": Family((), ("<eos>",), "<pad>", "lower"),
    "t5": Family((), ("</s>",), "<pad>"),
    "xlm_roberta": Family(("<s>",), ("</s>",), "<pad>", fairseq=True),
}
FAIRSEQ = ("<s>", "<pad>", "</s>", "<unk>")  # the ids 0 to 3 of such a model, whatever its file says


def sentencepiece(texts: Iterable[str] = (), *, path: str = "", family: str = "siglip", clean: str = "") -> Tokenizer:
    """A sentencepiece `.model` as one of `FAMILIES` reads it. A text that spells a special token stays text.

    Args:
        texts: not read.
        path: the file, or a folder with `spiece.model`, `sentencepiece.bpe.model` or `tokenizer.model`.
        family: which ids frame a text, and how ids are counted.
        clean: another cleaning than the family's, from `CLEANERS`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown family, or a file without its special pieces.
    """
    if family not in FAMILIES:
        raise ValueError(
            f"family {family!r} is not among: {', '.join(sorted(FAMILIES))}; set config.data.tokenizer.options.family to one of them."
        )
    rules = FAMILIES[family]
    file = find(path, "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
    try:
        engine = SentencePiece(file.read_bytes(), rules.fairseq, rules.split_commas)
    except RuntimeError as error:
        raise ValueError(f"{file} is no sentencepiece model ({error}); set config.data.tokenizer.options.path to one.") from error
    names = FAIRSEQ if rules.fairseq else [engine.inner.id_to_piece(i) for i in range(engine.inner.get_piece_size())]
    vocab = {name: i for i, name in enumerate(names)}
    check_pieces((*rules.prefix, *rules.suffix, rules.pad), vocab, file)
    ids = lambda pieces: tuple(vocab[piece] for piece in pieces)
    return Tokenizer(engine, Frame(ids(rules.prefix), ids(rules.suffix), vocab[rules.pad]), clean or rules.clean)


def framed(inner: tokenizers.Tokenizer, prefix: Sequence[str], suffix: Sequence[str], pad: str, also: Sequence[str] = ()) -> Tokenizer:
    """Declares the special tokens, puts the frame into the post-processor, and wraps it all.

    Args:
        inner: a tokenizer without them.
        prefix: before every text.
        suffix: after it.
        pad: fills up.
        also: further special tokens, left out where the vocabulary lacks them.
    """
    known = [name for name in dict.fromkeys([*prefix, *suffix, pad, *also]) if inner.token_to_id(name) is not None]
    inner.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in known])
    ids = {name: inner.token_to_id(name) for name in (*prefix, *suffix)}
    inner.post_processor = processors.TemplateProcessing(single=[*prefix, "$A", *suffix], special_tokens=list(ids.items()))
    frame = Frame(tuple(ids[name] for name in prefix), tuple(ids[name] for name in suffix), inner.token_to_id(pad))
    return Tokenizer(Fast(inner), frame)


def check_pieces(names: Iterable[str], vocab, where) -> None:
    """Refuses a vocabulary without its special pieces.

    Raises:
        ValueError: names them.
    """
    missing = [name for name in names if name not in vocab]
    if missing:
        raise ValueError(
            f"{where} has no {', '.join(missing)} among its {len(vocab)} pieces; "
            "set config.data.tokenizer.options.path to another file, or its options to the names that it uses."
        )


def saved(texts: Iterable[str] = (), *, path: str = "") -> Tokenizer:
    """The tokenizer of an earlier run, for towers that start from it.

    Args:
        texts: not read.
        path: the folder `tokenizer` of its workdir.

    Raises:
        FileNotFoundError: no tokenizer there.
    """
    return load(find(path, FILE_NAME).parent)


def find(path: str | os.PathLike, *names: str) -> pathlib.Path:
    """`path` itself, or the first of `names` in that folder.

    Raises:
        FileNotFoundError: neither.
    """
    at = _path(path)
    found = [file for file in ([at / name for name in names] if at.is_dir() else [at]) if file.is_file()]
    if not found:
        raise FileNotFoundError(f"{at} is no {' or '.join(names)}, nor a folder with one; set config.data.tokenizer.options.path to it.")
    return found[0]


def _path(path: str | os.PathLike) -> pathlib.Path:
    if not str(path):
        raise ValueError("this tokenizer reads a vocabulary that exists; set config.data.tokenizer.options.path to its file or folder.")
    return pathlib.Path(path).expanduser()


def _vocab_and_merges(path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """From `vocab.json` and `merges.txt`, or from the model that a `tokenizer.json` holds."""
    file = find(path, "vocab.json", "tokenizer.json")
    data = json.loads(file.read_text(encoding="utf-8"))
    if "model" in data and isinstance(data["model"], dict):
        return data["model"]["vocab"], [tuple(m.split(" ") if isinstance(m, str) else m) for m in data["model"]["merges"]]
    lines = find(file.parent, "merges.txt").read_text(encoding="utf-8").split("\n")
    return data, [tuple(line.split(" ")) for line in lines[lines[0].startswith("#version") :] if line.strip()]


def _clip_file(file: pathlib.Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of OpenAI's file: bytes, bytes that end a word, what merges make, two special tokens."""
    with gzip.open(file) as lines:
        merges = [tuple(line.split()) for line in lines.read().decode("utf-8").split("\n")[1 : CLIP_MERGES + 1]]
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    # Bytes without a picture take the next characters after the last byte.
    letters = [chr(b) for b in shown] + [chr(256 + i) for i in range(256 - len(shown))]
    pieces = [*letters, *(letter + "</w>" for letter in letters), *map("".join, merges), "<start_of_text>", "<end_of_text>"]
    return {piece: i for i, piece in enumerate(pieces)}, merges
