"""Byte-pair encoding trained on a run's own captions."""

from collections.abc import Iterable

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from input_pipeline.tokenize.engines import Fast
from input_pipeline.tokenize.tokenizer import Frame, Tokenizer

PAD, SOT, EOT = "<pad>", "<sot>", "<eot>"  # ids 0, 1, 2


def train_bpe(texts: Iterable[str], *, vocab_size: int = 1024, lowercase: bool = True) -> Tokenizer:
    """Learns byte-pair merges from captions; the same texts give the same file. A text that spells a special token stays text.

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
    bpe.post_processor = processors.TemplateProcessing(single=[SOT, "$A", EOT], special_tokens=[(SOT, 1), (EOT, 2)])
    return Tokenizer(Fast(bpe, literal=True), Frame((1,), (2,), 0))
