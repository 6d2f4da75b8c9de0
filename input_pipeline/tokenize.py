"""Byte-pair encoding trained on a run's own captions, and the arrays it yields.

Leaves the files' place to the caller: a run keeps its tokenizer beside its checkpoints.
"""

import os
from collections.abc import Iterable, Sequence

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

PAD, SOT, EOT = "<pad>", "<sot>", "<eot>"  # ids 0, 1, 2
FILE_NAME = "tokenizer.json"


class Tokenizer:
    """Texts to arrays; every row begins with `sot_id`, ends with `eot_id` and is filled up with `pad_id`.

    Args:
        bpe: a trained tokenizer whose first three entries are the special ones.
    """

    pad_id, sot_id, eot_id = 0, 1, 2

    def __init__(self, bpe: tokenizers.Tokenizer):
        bpe.encode_special_tokens = True  # a caption that spells "<eot>" must not end early
        self._bpe = bpe

    @property
    def vocab_size(self) -> int:
        return self._bpe.get_vocab_size()

    def __call__(self, texts: Sequence[str], length: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids int32 [N length] and a mask bool [N length], False on padding.

        A longer text is cut and its last kept token becomes `eot_id`; the empty text is `sot_id`, `eot_id`.

        Raises:
            ValueError: a length below 2.
        """
        if length < 2:
            raise ValueError(
                f"length {length} leaves no room for the first and last token; set config.data.transforms.text.options.length to 2 or more."
            )
        ids = np.full((len(texts), length), self.pad_id, np.int32)
        mask = np.zeros((len(texts), length), np.bool_)
        for row, encoding in enumerate(self._bpe.encode_batch_fast(list(texts))):
            tokens = [self.sot_id, *encoding.ids[: length - 2], self.eot_id]
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = True
        return ids, mask

    def __reduce__(self):
        return _from_json, (self._bpe.to_str(),)  # its own pickling forgets `encode_special_tokens`

    def decode(self, ids: Iterable[int]) -> str:
        """The text of one row, without its special tokens."""
        return self._bpe.decode([int(i) for i in ids if i > self.eot_id])

    def save(self, folder: str | os.PathLike) -> None:
        """Writes `tokenizer.json` into an existing folder, whole or not at all."""
        path = os.path.join(folder, FILE_NAME)
        with open(path + ".tmp", "w", encoding="utf-8") as file:
            file.write(self._bpe.to_str(pretty=True))
        os.replace(path + ".tmp", path)


def load(folder: str | os.PathLike) -> Tokenizer:
    """The tokenizer that `Tokenizer.save` wrote into `folder`.

    Raises:
        FileNotFoundError: no tokenizer there.
    """
    path = os.path.join(folder, FILE_NAME)
    with open(path, encoding="utf-8") as file:
        return _from_json(file.read())


def _from_json(text: str) -> Tokenizer:
    return Tokenizer(tokenizers.Tokenizer.from_str(text))


def train_bpe(texts: Iterable[str], *, vocab_size: int = 1024, lowercase: bool = True) -> Tokenizer:
    """Learns byte-pair merges from captions; the same texts give the same file.

    Args:
        texts: training captions; how often a word occurs decides what merges first.
        vocab_size: entries at most, of which 3 are special and 256 are bytes, so that every text can be written.
        lowercase: fold case, after composing accents (Unicode NFC).

    Raises:
        ValueError: a vocabulary too small for the bytes.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size < len(alphabet) + 3:
        raise ValueError(
            f"vocab_size {vocab_size} has no room for 256 bytes and 3 special tokens; "
            "set config.data.tokenizer.options.vocab_size to 512 or more."
        )
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), *([normalizers.Lowercase()] if lowercase else [])])
    # The added space makes the first word the same token as elsewhere.
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[PAD, SOT, EOT], initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(texts, trainer)
    return Tokenizer(bpe)




TOKENIZERS = {"bpe": train_bpe}
