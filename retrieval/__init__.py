"""From a checkpoint to something to query: `retrieval.load(workdir or model).encode(texts | images)`, then `retrieval.search`."""

from retrieval.encoder import Encoder
from retrieval.exact import search
from retrieval.restore import load

__all__ = ["Encoder", "load", "search"]
