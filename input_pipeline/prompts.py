"""What the texts of one source begin with, so that sources of different tasks can share a run: an instruction for each view."""

from collections.abc import Mapping
from typing import Any

from input_pipeline.around import Around
from input_pipeline.tasks import RankingTask


class Prompted(Around):
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
        super().__init__(source)
        self._prompts = ({"negatives": prompts["passage"]} if "passage" in prompts else {}) | dict(prompts)

    def ranking(self) -> RankingTask:
        """The source's task, prompted like its records: queries as `query`, the corpus as `passage`."""
        task = self._source.ranking()
        put = lambda view, texts: [self._prompts.get(view, "") + text for text in texts]
        return RankingTask(put("query", task.queries), put("passage", task.corpus), task.relevant, task.query_ids, task.corpus_ids)

    def _changed(self, i: int, record: Mapping[str, Any]) -> dict[str, Any]:
        out = dict(record)
        for view, prompt in self._prompts.items():
            if view in out:
                out[view] = [prompt + text for text in out[view]] if isinstance(out[view], list) else prompt + out[view]
        return out
