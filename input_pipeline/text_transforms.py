"""Transforms of texts; what a transform is, `input_pipeline/transforms.py` says."""

from collections.abc import Sequence

import numpy as np

from core.config import ConfigError
from input_pipeline import packing
from input_pipeline.order import Rngs
from input_pipeline.tokenize import Tokenizer
from input_pipeline.tokenize.clean import as_text


def tokenize(
    values: Sequence[str | bytes] | Sequence[Sequence[str | bytes]], rngs: Rngs, tokenizer: Tokenizer | None, *,
    length: int = 32, buckets: tuple = (), prompt: str = "", pool_prompt: bool = True, truncate_side: str = "right",
) -> dict[str, np.ndarray]:  # fmt: skip
    """Texts as token ids [N T], lists of K texts as [N K T], each with a mask that is False on padding.

    T is the smallest of `buckets` that holds the longest text of the batch, or `length`: a compiled step serves one width, so a few
    buckets cost a few compilations and save the padding of short batches.

    Args:
        values: texts, or lists of equally many.
        rngs: not used.
        tokenizer: of the run.
        length: tokens at most, those around the text and of the prompt included; longer texts are cut.
        buckets: smaller widths, rising.
        prompt: goes before every text.
        pool_prompt: else `_pool_mask` is False also on the prompt and what stands before it, for poolings that leave it out.
        truncate_side: the side from which too long a text loses tokens, `right` or `left`.

    Raises:
        ValueError: options that do not fit each other, or lists of different lengths.
    """
    if tokenizer is None:
        raise ConfigError("texts need a tokenizer; set config.data.tokenizer to dict(name='bpe', options=dict(vocab_size=1024)).")
    before = tokenizer.prompt_tokens(prompt) if prompt else len(tokenizer.frame.prefix)
    _check_lengths(length, buckets, before, prompt, truncate_side)
    lists = bool(values) and isinstance(values[0], (list, tuple))
    if lists and len({len(texts) for texts in values}) > 1:
        raise ValueError(f"rows hold {sorted({len(texts) for texts in values})} texts; one batch needs the same number in every row.")
    texts = [text for texts in values for text in texts] if lists else values
    ids, mask = tokenizer([prompt + as_text(text) for text in texts], length, buckets=buckets, truncate_side=truncate_side)
    arrays = {"": ids, "_mask": mask}
    if not pool_prompt:
        arrays["_pool_mask"] = mask & (np.arange(mask.shape[1]) >= before if prompt else True)
    return {name: array.reshape(len(values), -1, array.shape[-1]) for name, array in arrays.items()} if lists else arrays


def pack(
    values: Sequence[str | bytes] | Sequence[Sequence[str | bytes]], rngs: Rngs, tokenizer: Tokenizer | None, *,
    length: int = 32, group: int = 64, rows: int = 48, prompt: str = "",
) -> dict[str, np.ndarray]:  # fmt: skip
    """While training, texts as `packing.pack` puts several into a row; in evaluation each has a row of its own, as `tokenize` makes it.

    Raises:
        ValueError: options that do not fit each other.
    """
    if rngs is None or tokenizer is None:
        return tokenize(values, None, tokenizer, length=length, prompt=prompt)
    _check_lengths(length, (), tokenizer.prompt_tokens(prompt) if prompt else 0, prompt, "right")
    return packing.pack(values, rngs, tokenizer, length=length, group=group, rows=rows, prompt=prompt)


def mask_tokens(
    values: Sequence[str | bytes], rngs: Rngs, tokenizer: Tokenizer | None, *,
    length: int = 128, buckets: tuple = (), mask_id: int = -1, share: float = 0.15, keep: float = 0.1, replace: float = 0.1,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Token ids of which some are hidden, anew in each epoch; `_target`: what they were, or -1 where nothing is asked; and `_own`: all of
    the text's own tokens as they were, or -1 around it.

    In evaluation nothing is hidden. What a row hides does not depend on the width of its batch.

    Args:
        values: texts.
        rngs: one for each while training.
        tokenizer: of the run.
        length: tokens at most, those around the text included.
        buckets: smaller widths, rising.
        mask_id: what stands for a hidden token: 103 for BERT's vocabulary; a vocabulary trained by the run has none, so that its size
            will do, in a table with a row more.
        share: of a text's own tokens that are asked for; each is drawn alone.
        keep: of these, stay as they are.
        replace: of these, become another token of the vocabulary; the rest is hidden.

    Raises:
        ValueError: no mask_id, or options that do not fit each other.

    Source: Devlin et al. 2019, arXiv:1810.04805, section 3.1; drawn in each epoch as in Liu et al. 2019, arXiv:1907.11692.
    """
    if mask_id < 0 or not (0 < share <= 1 and 0 <= keep <= 1 and 0 <= replace <= 1 - keep):
        raise ValueError(
            f"options are mask_id {mask_id}, share {share}, keep {keep}, replace {replace}; set mask_id to a token, 103 for BERT's."
        )
    arrays = tokenize(values, None, tokenizer, length=length, buckets=buckets)
    if rngs is None:
        return arrays
    ids, target, whole = arrays[""], np.full_like(arrays[""], -1), np.full_like(arrays[""], -1)
    before, after = len(tokenizer.frame.prefix), len(tokenizer.frame.suffix)
    for row, rng, count in zip(range(len(ids)), rngs, arrays["_mask"].sum(1).tolist(), strict=True):
        own = slice(before, max(count - after, before))
        asked, fate, other = rng.random((3, own.stop - own.start))
        other = (other * tokenizer.vocab_size).astype(np.int32)
        asked, text = asked < share, ids[row, own].copy()
        target[row, own], whole[row, own] = np.where(asked, text, -1), text
        ids[row, own] = np.where(asked & (fate >= keep), np.where(fate < keep + replace, other, mask_id), text)
    return arrays | {"_target": target, "_own": whole}


def _check_lengths(length: int, buckets: Sequence[int], before: int, prompt: str, truncate_side: str) -> None:
    if truncate_side not in ("right", "left") or (truncate_side == "left" and prompt):
        why = "which would cut the prompt away; set it to 'right'" if prompt else "set it to 'right' or 'left'"
        raise ValueError(f"options.truncate_side is {truncate_side!r}; {why}.")
    if list(buckets) != sorted({int(b) for b in buckets if 0 < b <= length}):
        raise ValueError(f"options.buckets is {tuple(buckets)}; set it to rising widths of at most options.length, {length}, or to ().")
    if prompt and before >= length:
        raise ValueError(f"the prompt takes {before} of options.length = {length} tokens; set length to {2 * before} or more.")
