"""Token rows: what every tokenizer does alike once an engine has split the texts.

Leaves the vocabulary to `engines.py`, and where it comes from to the other files of this package.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from input_pipeline.tokenize import engines, export
from input_pipeline.tokenize.clean import CLEANERS, as_text

FILE_NAME = "tokenizer_settings.json"  # beside the engine's own file


@dataclasses.dataclass(frozen=True)
class Frame:
    """The ids around each text: `prefix`, the text's own, `suffix`, and `pad_id` up to the length."""

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    pad_id: int


class Tokenizer:
    """Texts to arrays of token ids. Two objects made from equal parts give equal rows, in any process.

    A text is a `str`, or `bytes` of UTF-8. Invalid bytes and lone surrogates become U+FFFD, so that every text has a row.

    Args:
        engine: splits texts into ids of its vocabulary.
        frame: what stands around them.
        clean: what happens to a text before, from `CLEANERS`.
    """

    def __init__(self, engine: Any, frame: Frame, clean: str = "none"):
        self.engine, self.frame, self.clean = engine, frame, clean

    @property
    def vocab_size(self) -> int:
        """One more than the largest id: rows that an embedding table needs."""
        return self.engine.vocab_size

    @property
    def pad_id(self) -> int:
        """Fills rows up."""
        return self.frame.pad_id

    @property
    def cls_id(self) -> int | None:
        """The first id of every row, or None where texts begin at once."""
        return self.frame.prefix[0] if self.frame.prefix else None

    @property
    def eos_id(self) -> int | None:
        """The last id before the padding, or None where texts end as they are."""
        return self.frame.suffix[-1] if self.frame.suffix else None

    def __call__(
        self, texts: Sequence[str | bytes], length: int, *, buckets: Sequence[int] = (), truncate_side: str = "right"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Token ids int32 [N L] and a mask bool [N L], False on padding.

        L is `length`, or the smallest of `buckets` that holds the longest row. A longer text loses tokens of its own, never those
        of the frame; the empty text is the frame alone.

        Args:
            texts: any number.
            length: tokens at most, frame included.
            buckets: smaller lengths.
            truncate_side: the side that loses tokens, `right` or `left`.

        Raises:
            ValueError: a length with no room for the frame.
            TypeError: a text that is neither str nor bytes.
        """
        rows = self.rows(texts, length, truncate_side)
        longest = max(map(len, rows), default=0)
        width = min((bucket for bucket in (*buckets, length) if bucket >= longest), default=length)
        ids = np.full((len(rows), width), self.pad_id, np.int32)
        for row, tokens in zip(ids, rows, strict=True):
            row[: len(tokens)] = tokens
        return ids, np.arange(width) < np.array([len(tokens) for tokens in rows], np.int32).reshape(-1, 1)

    def rows(self, texts: Sequence[str | bytes], length: int | None = None, truncate_side: str = "right") -> list[list[int]]:
        """Framed ids of each text, cut to `length` tokens but not padded; for sorting by length. Raises as `__call__` does."""
        prefix, suffix = list(self.frame.prefix), list(self.frame.suffix)
        room = None if length is None else length - len(prefix) - len(suffix)
        if room is not None and (room < 0 or length < 1):
            least = max(1, len(prefix) + len(suffix))
            raise ValueError(
                f"length {length} leaves no room for the {len(prefix) + len(suffix)} tokens around every text; "
                f"set config.data.transforms.<view>.options.length to {least} or more."
            )
        clean = CLEANERS[self.clean]
        split = self.engine.encode([clean(as_text(text)) for text in texts])
        if truncate_side == "left":
            cut = lambda ids: ids if room is None else ids[max(0, len(ids) - room) :]
        else:
            cut = lambda ids: ids[:room]
        return [[*prefix, *cut(ids), *suffix] for ids in split]

    def prompt_tokens(self, prompt: str) -> int:
        """Tokens at the start of a row that a prompt takes, the prefix included: what pooling leaves out when it leaves out prompts.

        Source: sentence-transformers, which counts the prompt alone, without its suffix.
        """
        return len(self.rows([prompt])[0]) - len(self.frame.suffix)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of one row as the vocabulary writes it, without the frame and padding."""
        kept, prefix, suffix = [int(i) for i in ids], list(self.frame.prefix), list(self.frame.suffix)
        while kept and kept[-1] == self.pad_id:
            kept.pop()
        start = len(prefix) if kept[: len(prefix)] == prefix else 0
        end = len(kept) - len(suffix) if suffix and kept[-len(suffix) :] == suffix else len(kept)
        return self.engine.decode(kept[start:end])

    def save(self, folder: str | os.PathLike) -> None:
        """Writes the vocabulary and then `FILE_NAME` into an existing folder; `load` needs nothing else."""
        folder = pathlib.Path(folder)
        settings, data = self._state()
        _write(folder / self.engine.FILE_NAME, data)
        _write(folder / FILE_NAME, json.dumps(settings, indent=2).encode())

    def export_hf(self, folder: str | os.PathLike, length: int, *, fixed: bool = False) -> None:
        """Writes into an existing folder what transformers' `AutoTokenizer` loads offline, with the same ids.

        `tokenizer.json` (or, for SigLIP, `spiece.model`), `tokenizer_config.json` and `special_tokens_map.json`. What cannot be said
        there: the encodings, HTML and wide letters that open_clip's cleaning mends, its padding with 0 (the last token fills up
        instead), and what `convert.from_sentencepiece` names.

        Args:
            folder: gets the files.
            length: tokens at most.
            fixed: fill every row up to it.
        """
        export.write(self, pathlib.Path(folder), length, fixed=fixed)

    def same_ids(self, other: "Tokenizer") -> bool:
        """Whether the other one is made of equal parts, and so gives every text the same ids."""
        return self._state() == other._state()

    def _state(self) -> tuple[dict[str, Any], bytes]:
        kind = next(name for name, engine in engines.ENGINES.items() if engine is type(self.engine))
        options, data = self.engine.state()
        return {"engine": kind, "options": options, "clean": self.clean, "frame": dataclasses.asdict(self.frame)}, data

    def __reduce__(self):
        return _from_state, self._state()


def load(folder: str | os.PathLike) -> Tokenizer:
    """The tokenizer that `Tokenizer.save` wrote into `folder`.

    Raises:
        FileNotFoundError: no tokenizer there.
    """
    folder = pathlib.Path(folder)
    settings = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    return _from_state(settings, (folder / engines.ENGINES[settings["engine"]].FILE_NAME).read_bytes())


def _from_state(settings: dict[str, Any], data: bytes) -> Tokenizer:
    frame = settings["frame"]
    frame = Frame(tuple(frame["prefix"]), tuple(frame["suffix"]), frame["pad_id"])
    return Tokenizer(engines.ENGINES[settings["engine"]].from_state(settings["options"], data), frame, settings["clean"])


def _write(path: pathlib.Path, data: bytes) -> None:
    """Whole or not at all."""
    part = path.with_name(path.name + ".tmp")
    part.write_bytes(data)
    os.replace(part, path)
