"""A tokenizer in which two ids change places."""

import json
from typing import Any

import tokenizers

from input_pipeline.tokenize import Frame, Tokenizer
from input_pipeline.tokenize.engines import Fast


def swapped(tokenizer: Tokenizer, a: int, b: int) -> Tokenizer:
    """The same splits with the ids `a` and `b` exchanged, special tokens and padding included."""
    swap = lambda i: {a: b, b: a}.get(i, i)
    content = json.loads(tokenizer.engine.to_library().to_str())
    content["model"]["vocab"] = _vocabulary(content["model"]["vocab"], swap)
    for token in content["added_tokens"]:
        token["id"] = swap(token["id"])
    content["added_tokens"].sort(key=lambda token: token["id"])
    content["post_processor"] = content["padding"] = content["truncation"] = None  # the frame says what stands around a text
    literal = isinstance(tokenizer.engine, Fast) and tokenizer.engine.literal
    frame = tokenizer.frame
    moved = Frame(tuple(map(swap, frame.prefix)), tuple(map(swap, frame.suffix)), swap(frame.pad_id))
    return Tokenizer(Fast(tokenizers.Tokenizer.from_str(json.dumps(content)), literal), moved, tokenizer.clean)


def _vocabulary(vocab: Any, swap) -> Any:
    """By token, or in the order of ids."""
    if isinstance(vocab, dict):
        return {token: swap(i) for token, i in vocab.items()}
    return [vocab[swap(i)] for i in range(len(vocab))]
