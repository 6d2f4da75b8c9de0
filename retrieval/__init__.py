"""From a checkpoint to something to query: `retrieval.load(workdir).encode(texts | images)`."""

from retrieval.embed import Encoder, load

__all__ = ["Encoder", "load"]
