"""From a checkpoint to something to query: `retrieval.load(workdir or model).encode(texts | images)`."""

from retrieval.embed import Encoder
from retrieval.restore import load

__all__ = ["Encoder", "load"]
