"""Encodes an input of any size into a folder of shards, shard by shard."""

import logging
from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np

from input_pipeline.bad_records import BadRecord
from retrieval.encoder import Encoder
from retrieval.shards import Writer
from retrieval.values import Value, Values

log = logging.getLogger(__name__)


def settings(encoder: Encoder, values: Values, view: str, *, shard_rows: int, batch: int, tokens: int, prompt: str | None) -> dict:
    """What the bytes of a folder depend on, for its manifest."""
    sizes = {"shard_rows": shard_rows} | ({"tokens": tokens, "prompt": prompt} if values.kind == "text" else {"batch": batch})
    return {"model": encoder.describe(view), "input": values.identity, "settings": sizes}


def embed(
    encoder: Encoder, values: Values, writer: Writer, view: str, *,
    shard_rows: int, batch: int, tokens: int, prompt: str | None, done: Callable[[int], object] = lambda rows: None,
) -> None:  # fmt: skip
    """Writes what is still missing. Memory holds one shard's values and vectors, whatever the input's size.

    Args:
        encoder: of the vectors.
        values: the input.
        writer: of the folder; its shards are not made again.
        view: which tower.
        shard_rows: rows of the input for each shard; within it texts are sorted by length.
        batch: images at once.
        tokens: of texts at once, on each device.
        prompt: put before each text, in place of the view's own.
        done: called with numbers of rows that are dealt with; first with those of earlier runs.
    """
    rows = values.read()
    before = sum(1 for _ in islice(rows, sum(shard["rows"] for shard in writer.manifest["shards"])))
    done(before)
    while chunk := list(islice(rows, shard_rows)):
        good = [value for value in chunk if value.fault is None]
        faults = [{"id": value.id, "fault": value.fault} for value in chunk if value.fault is not None]
        done(len(faults))
        if values.kind == "text":
            vectors = encoder.encode([value.value for value in good], view, prompt=prompt, tokens=tokens, done=done)
        else:
            vectors, good, broken = _images(encoder, good, view, batch, done)
            faults += broken
        writer.append(vectors, [value.id for value in good], len(chunk), faults)
    if writer.manifest["counts"].get("bad"):
        log.warning(
            "%d of %d rows are bad; the .bad.json files name them", writer.manifest["counts"]["bad"], writer.manifest["counts"]["rows"]
        )
    writer.finish()


def _images(encoder: Encoder, values: Sequence[Value], view: str, batch: int, done) -> tuple[np.ndarray, list[Value], list[dict]]:
    """Vectors of the files that can be read; decoded a batch at a time."""
    vectors, good, broken = [np.zeros((0, encoder.dim), np.float32)], [], []
    for start in range(0, len(values), batch):
        images = []
        for value in values[start : start + batch]:
            try:
                images.append(encoder.image(value.value, view))
                good.append(value)
            except (OSError, BadRecord) as error:
                broken.append({"id": value.id, "fault": f"{type(error).__name__}: {error}"})
        vectors.append(encoder.encode(images, view, batch))
        done(len(values[start : start + batch]))
    return np.concatenate(vectors), good, broken
