"""From a checkpoint to something to query: `vectors = embed(workdir or model, texts | images)`, then `search(queries, vectors, k=10)`."""

from retrieval.encoder import Encoder
from retrieval.exact import search
from retrieval.restore import embed, load

__all__ = ["Encoder", "embed", "load", "search"]
