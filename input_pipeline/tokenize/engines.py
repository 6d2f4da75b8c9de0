"""The two libraries that split texts into ids of a vocabulary, behind one face: `encode`, `decode`, `vocab_size`, `state`."""

from collections.abc import Sequence
from typing import Any

import sentencepiece
import tokenizers

from input_pipeline.tokenize import convert


class Fast:
    """The `tokenizers` library: its own normaliser, word split and model.

    Args:
        inner: its rules for length and padding are switched off, its post-processor is not used.
        literal: a text that spells a special token stays text; else it becomes that token, as in transformers.
    """

    FILE_NAME = "tokenizer.json"

    def __init__(self, inner: tokenizers.Tokenizer, literal: bool = False):
        inner.no_truncation()
        inner.no_padding()
        inner.encode_special_tokens = literal
        self.inner, self.literal = inner, literal
        self.vocab_size = 1 + max(inner.get_vocab(with_added_tokens=True).values())

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, nothing added."""
        return [encoding.ids for encoding in self.inner.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of bare ids."""
        return self.inner.decode(list(ids))

    def to_library(self) -> tokenizers.Tokenizer:
        """A copy for a `tokenizer.json`."""
        return tokenizers.Tokenizer.from_str(self.inner.to_str())

    def state(self) -> tuple[dict[str, Any], bytes]:
        """What `from_state` needs; the library's own pickling forgets `encode_special_tokens`."""
        return {"literal": self.literal}, self.inner.to_str(pretty=True).encode()

    @classmethod
    def from_state(cls, options: dict[str, Any], data: bytes) -> "Fast":
        """The same engine again."""
        return cls(tokenizers.Tokenizer.from_buffer(data), **options)


class SentencePiece:
    """The sentencepiece library, which trained such vocabularies: what it says is the definition.

    Args:
        model: contents of a `.model` file.
        fairseq: ids move up by one and the unknown token to 3, as XLM-R counts, with one more for its mask.
        split_commas: a comma after digits becomes a piece of its own, as ALBERT was trained.
    """

    FILE_NAME = "spiece.model"

    def __init__(self, model: bytes, fairseq: bool = False, split_commas: bool = False):
        self.model, self.fairseq, self.split_commas = model, fairseq, split_commas
        self.inner = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.vocab_size = self.inner.get_piece_size() + 2 * fairseq
        self._instead = self._split_commas() if split_commas else {}

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, nothing added."""
        rows = self.inner.encode(list(texts))
        if self._instead:
            rows = [[part for i in row for part in self._instead.get(i, (i,))] for row in rows]
        return [[self.outer(i) for i in row] for row in rows] if self.fairseq else rows

    def decode(self, ids: Sequence[int]) -> str:
        """The text of bare ids; those of no piece are left out."""
        inner = [i - 1 if i != 3 else self.inner.unk_id() for i in ids] if self.fairseq else ids
        return self.inner.decode([i for i in inner if 0 <= i < self.inner.get_piece_size()])

    def outer(self, i: int) -> int:
        """The model's id of a piece of the vocabulary file."""
        return i if not self.fairseq else 3 if i == self.inner.unk_id() else i + 1

    def to_library(self) -> tokenizers.Tokenizer:
        """The model in the other library; `convert.from_sentencepiece` says where ids differ."""
        return convert.from_sentencepiece(self.model, self.fairseq)

    def state(self) -> tuple[dict[str, Any], bytes]:
        """What `from_state` needs."""
        return {"fairseq": self.fairseq, "split_commas": self.split_commas}, self.model

    @classmethod
    def from_state(cls, options: dict[str, Any], data: bytes) -> "SentencePiece":
        """The same engine again."""
        return cls(data, **options)

    def _split_commas(self) -> dict[int, tuple[int, ...]]:
        """Pieces such as `▁2,` by their id, and what ALBERT reads instead: the digits anew, without the mark of a word's start
        where there was none, and the comma.

        Source: `encode_pieces` of github.com/google-research/albert.
        """
        found, comma = {}, self.inner.piece_to_id(",")
        for i in range(self.inner.get_piece_size()):
            piece = self.inner.id_to_piece(i)
            if len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit():
                parts = self.inner.encode(piece[:-1].replace("▁", ""), out_type=str)
                if piece[0] != "▁" and parts[0][0] == "▁":
                    parts = parts[1:] if parts[0] == "▁" else [parts[0][1:], *parts[1:]]
                found[i] = (*(self.inner.piece_to_id(part) for part in parts), comma)
        return found


ENGINES = {"sentencepiece": SentencePiece, "tokenizers": Fast}
