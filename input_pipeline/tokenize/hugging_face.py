"""Tokenizers from other people's folders: `tokenizer.json` with the facts beside it, or the vocabulary files of older ones."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import tokenizers
from tokenizers import normalizers

from input_pipeline.tokenize import vocabulary_files as files
from input_pipeline.tokenize.engines import Fast
from input_pipeline.tokenize.tokenizer import Frame, Tokenizer

FAMILY_OF_CLASS = {  # by the beginning of `tokenizer_class`
    "Albert": "albert", "Gemma": "gemma", "Siglip2": "siglip2", "Siglip": "siglip", "T5": "t5", "XLMRoberta": "xlm_roberta",
}  # fmt: skip
CLEAN_OF_OPEN_CLIP = {"canonicalize": "canonical", "lower": "open_clip", "whitespace": "open_clip_cased"}


def hf(texts: Iterable[str] = (), *, path: str = "", lowercase: bool = False, pad: str = "") -> Tokenizer:
    """A `tokenizer.json` with its own rules; its length and padding are left to the run.

    Args:
        texts: not read.
        path: the file or its folder; `tokenizer_config.json` and `special_tokens_map.json` beside it are heeded.
        lowercase: fold case first, as SigLIP 2 was trained, though its file does not say so.
        pad: name of the padding token, where the folder names none.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, or no padding token.
    """
    file = files.find(path, "tokenizer.json")
    try:
        inner = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library has no narrower kind
        raise ValueError(f"{file} is no tokenizer.json ({error}); set config.data.tokenizer.options.path to one.") from error
    facts, padding = _facts(file.parent), inner.padding
    if lowercase:
        inner.normalizer = normalizers.Sequence([normalizers.Lowercase(), *([inner.normalizer] if inner.normalizer else [])])
    pad = pad or _name(facts, "pad_token") or (padding["pad_token"] if padding else None)
    if not pad or inner.token_to_id(pad) is None:
        raise ValueError(
            f"{file.parent} names {f'the padding token {pad!r}, which its vocabulary lacks' if pad else 'no padding token'}; "
            "set config.data.tokenizer.options.pad to one of its tokens, such as the one that ends a text."
        )
    engine = Fast(inner, literal=bool(facts.get("split_special_tokens", False)))
    prefix, suffix = _around(inner, facts)
    return Tokenizer(engine, Frame(prefix, suffix, inner.token_to_id(pad)))


def _around(inner: tokenizers.Tokenizer, facts: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that the post-processor puts before and after a text; those of `add_bos_token` and `add_eos_token` where they are given."""
    if "add_bos_token" in facts or "add_eos_token" in facts:  # as transformers 5, which then writes its own post-processor
        asked = [facts.get(f"add_{side}_token") and _name(facts, f"{side}_token") for side in ("bos", "eos")]
        return tuple(tuple([inner.token_to_id(name)] if name else []) for name in asked)
    bare, whole = (inner.encode("a", add_special_tokens=special).ids for special in (False, True))
    start = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
    return tuple(whole[:start]), tuple(whole[start + len(bare) :])


def load_folder(path: str | os.PathLike, pad: str = "") -> Tokenizer:
    """The tokenizer of a Hugging Face, sentence-transformers or open_clip folder.

    `tokenizer.json` is taken first, then vocabulary files by the class that `tokenizer_config.json` names.

    Args:
        path: the folder.
        pad: name of the padding token, where the folder names none.

    Raises:
        FileNotFoundError: no such folder, or no tokenizer in it.
        ValueError: files that cannot be read, or a class of tokenizer that is not known.
    """
    folder = pathlib.Path(path)
    modules = _json(folder / "modules.json") or [{"path": ""}]
    folder /= modules[0]["path"]
    open_clip = _json(folder / "open_clip_config.json")
    if open_clip:
        return _open_clip(folder, open_clip.get("model_cfg", {}).get("text_cfg", {}), pad)
    found = _by_files(folder, pad)
    lowers = (_json(folder / "sentence_bert_config.json") or {}).get("do_lower_case", False)
    return Tokenizer(found.engine, found.frame, "lower") if lowers and found.clean == "none" else found


def _open_clip(folder: pathlib.Path, text: Mapping[str, Any], pad: str) -> Tokenizer:
    if not text.get("hf_tokenizer_name"):
        return files.clip(path=str(folder))
    rules = text.get("tokenizer_kwargs", {})
    found = _by_files(folder, pad)
    # CLIPA overwrites the last token with 0 and reads that place all the same.
    suffix = (0,) * len(found.frame.suffix) if rules.get("strip_sep_token", False) else found.frame.suffix
    clean = CLEAN_OF_OPEN_CLIP[rules.get("clean", "whitespace")]
    return Tokenizer(found.engine, dataclasses.replace(found.frame, suffix=suffix), clean if found.clean == "none" else found.clean)


def _by_files(folder: pathlib.Path, pad: str) -> Tokenizer:
    facts, names = _facts(folder), {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    kind = facts.get("tokenizer_class") or ""
    at = str(folder)
    if "tokenizer.json" in names:
        model_type = (_json(folder / "config.json") or {}).get("model_type", "")
        # SigLIP 2 reads lower-cased texts; its folders name Gemma's class, whose file keeps case.
        lowers = kind.startswith("Siglip2") or (model_type.startswith("siglip") and kind.startswith("Gemma"))
        return hf(path=at, lowercase=lowers, pad=pad)
    special = {key: _name(facts, f"{key}_token") for key in ("cls", "sep", "pad", "unk", "mask") if _name(facts, f"{key}_token")}
    if "vocab.txt" in names:
        return files.wordpiece(
            path=at, lowercase=facts.get("do_lower_case", True), strip_accents=facts.get("strip_accents"),
            split_chinese=facts.get("tokenize_chinese_chars", True), **special,
        )  # fmt: skip
    if {"vocab.json", "merges.txt"} <= names:
        if kind.startswith("CLIP"):
            return files.clip(path=at, style="hf")
        return files.byte_bpe(path=at, add_prefix_space=facts.get("add_prefix_space", False), **special)
    if any(name.endswith(".txt.gz") for name in names):
        return files.clip(path=at)
    if names & {"spiece.model", "sentencepiece.bpe.model", "tokenizer.model"}:
        return files.sentencepiece(path=at, family=_family(kind, names, folder))
    raise FileNotFoundError(
        f"{folder} holds no tokenizer; one of tokenizer.json, vocab.txt, vocab.json with merges.txt, bpe_simple_vocab_16e6.txt.gz, "
        f"spiece.model, sentencepiece.bpe.model or tokenizer.model is needed, found: {', '.join(sorted(names)) or 'nothing'}."
    )


def _family(kind: str, names: set[str], folder: pathlib.Path) -> str:
    found = next((family for start, family in FAMILY_OF_CLASS.items() if kind.startswith(start)), None)
    if found is None and "sentencepiece.bpe.model" in names:
        found = "xlm_roberta"
    if found is None:
        raise ValueError(
            f"{folder} has a sentencepiece model but the tokenizer_class {kind!r}, which does not tell how it is used; "
            f"set tokenizer_class in its tokenizer_config.json to one that begins with: {', '.join(FAMILY_OF_CLASS)}."
        )
    return found


def _facts(folder: pathlib.Path) -> dict[str, Any]:
    return (_json(folder / "special_tokens_map.json") or {}) | (_json(folder / "tokenizer_config.json") or {})


def _name(facts: Mapping[str, Any], key: str) -> str | None:
    """A token's name, which files write bare or with its rules."""
    value = facts.get(key)
    return value["content"] if isinstance(value, dict) else value


def _json(file: pathlib.Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
