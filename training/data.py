"""The input of a run: its sources and tokenizer, the shapes of a batch, and an iterator from any position."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from core.storage import spooled
from input_pipeline import batching, tokenize
from training.widths import SameWidths

HOST_ONLY = ("record", "source", "bad")  # arrays of a batch that no device needs


class Data(NamedTuple):
    """Sources and tokenizer of `config.data`, ready to deliver batches."""

    config: Any
    sources: Mapping[str, Any]
    tokenizer: tokenize.Tokenizer | None
    seed: int

    @property
    def vocab_size(self) -> int | None:
        """Entries of the tokenizer, or None without one."""
        return self.tokenizer.vocab_size if self.tokenizer else None

    @property
    def records_per_epoch(self) -> int:
        """Rows that make one epoch."""
        return batching.records_per_epoch(self.config, self.sources)

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape and kind of what a global batch brings to the devices, texts at their greatest length; reads one row."""
        one = self.config.copy_and_resolve_references()
        with one.unlocked():
            one.global_batch, one.workers = 1, 0
            for view in self._bucketed():
                one.transforms[view].options.buckets = ()
        with batching.batches(one, self.sources, self.tokenizer, seed=self.seed) as rows:
            row = next(rows)
        return {
            name: jax.ShapeDtypeStruct((self.config.global_batch, *array.shape[1:]), array.dtype)
            for name, array in row.items() if name not in HOST_ONLY
        }  # fmt: skip

    def iterate(
        self, start: int, on_bad: Callable[[dict], None] | None = None, mesh: jax.sharding.Mesh | None = None
    ) -> batching.Batches | SameWidths:
        """This process's rows of every global batch from number `start` on.

        Args:
            start: batches already delivered.
            on_bad: told of each record that was passed over.
            mesh: of the run; several processes need it to agree on the width of texts in buckets.
        """
        batches = batching.batches(
            self.config, self.sources, self.tokenizer, seed=self.seed, start=start, on_bad=on_bad,
            process_index=jax.process_index(), process_count=jax.process_count(),
        )  # fmt: skip
        views = self._bucketed()
        if jax.process_count() == 1 or not views:
            return batches
        return SameWidths(batches, {view: self.tokenizer.pad_id for view in views}, mesh)

    def _bucketed(self) -> list[str]:
        """Views whose texts come in several widths."""
        return [view for view, entry in self.config.transforms.items() if "buckets" in entry.options and entry.options.buckets]


def open_data(config, workdir: pathlib.Path) -> Data:
    """Builds the sources; loads the run's tokenizer, or trains it on the training captions and saves it in `W/tokenizer`.

    Only a folder with a `config.json` holds a run: a tokenizer beside nothing is left from a start that was refused. Every
    process trains the same tokenizer from the same texts; the first one writes it.
    """
    sources = batching.make_sources(config.data)
    if config.data.tokenizer is None:
        return Data(config.data, sources, None, config.seed)
    folder = workdir / "tokenizer"
    if (workdir / "config.json").exists() and (folder / tokenize.FILE_NAME).exists():
        with spooled(folder, ["*"]) as files:
            return Data(config.data, sources, tokenize.load(files), config.seed)
    tokenizer = batching.make_tokenizer(config.data, sources)
    if jax.process_index() == 0:
        with spooled(folder) as files:
            files.mkdir(parents=True, exist_ok=True)
            tokenizer.save(files)
    return Data(config.data, sources, tokenizer, config.seed)


def example(spec: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """One row of zeros like a batch, for tracing a model's init."""
    return {name: jnp.zeros((1, *s.shape[1:]), s.dtype) for name, s in spec.items()}
