"""What the texts of one source begin with, so that sources of different tasks can share a run: an instruction for each view."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from input_pipeline.tasks import RankingTask


class Prompted:
    """A source whose texts begin with prompts; `texts()`, which tokenizers learn from, stays without.

    Args:
        source: any source.
        prompts: by view, for example `{"query": "Find the function: "}`. `negatives`, which are passages, take that of `passage`
            unless they have their own.

    Raises:
        ValueError: a view that the source's records lack or that is no text.
    """

    def __init__(self, source: Any, prompts: Mapping[str, str]):
        record = source[0]
        for view in prompts:
            if not isinstance(record.get(view), (str, list)):
                texts = [name for name, value in record.items() if isinstance(value, (str, list))]
                raise ValueError(f"prompts.{view} is for a text that records lack; they have: {', '.join(texts) or 'none'}.")
        self._source = source
        self._prompts = ({"negatives": prompts["passage"]} if "passage" in prompts else {}) | dict(prompts)
        self.counts = getattr(source, "counts", {})

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self._put(self._source[i])

    def read(self, i: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """Record i, with whatever the source draws."""
        return self._put(self._source.read(i, rng) if hasattr(self._source, "read") else self._source[i])

    def id(self, i: int) -> int:
        """What records that are positives of each other share."""
        return self._source.id(i) if hasattr(self._source, "id") else self._source[i]["id"]

    def texts(self) -> Iterator[str]:
        return self._source.texts()

    def ranking(self) -> RankingTask:
        """The source's task, prompted like its records: queries as `query`, the corpus as `passage`."""
        task = self._source.ranking()
        put = lambda view, texts: [self._prompts.get(view, "") + text for text in texts]
        return RankingTask(put("query", task.queries), put("passage", task.corpus), task.relevant, task.query_ids, task.corpus_ids)

    def _put(self, record: Mapping[str, Any]) -> dict[str, Any]:
        out = dict(record)
        for view, prompt in self._prompts.items():
            if view in out:
                out[view] = [prompt + text for text in out[view]] if isinstance(out[view], list) else prompt + out[view]
        return out
