"""A tower without a body: vectors that another encoder made, and on top of them what is trained."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.core import FrozenDict
from jaxtyping import Array, Float, Key

from models import read_out
from models.layers import dense, dropout


class Vectors(nn.Module):
    """What a frozen tower leaves to be trained, on its vectors from a folder (the transform `stored`) in place of the tower.

    A vector is read as one token. Parameters are named, and do, as on top of the frozen tower itself with a pooling of that name.

    Source: Huang et al. 2024 (LLM2CLIP, arXiv:2411.04997), which computes its captions' vectors once.
    """

    width: int = 384  # of the vectors
    embed_dim: int = 256  # 0: the pooled vector itself
    pooling: str = "mean"  # of one token: the vector as it is; or `adapted`, behind residual blocks
    pooling_options: Mapping[str, Any] = FrozenDict()
    dropout: float = 0.0
    dtype: str = "float32"

    @property
    def output_dim(self) -> int:
        """Features of an embedding."""
        return self.embed_dim or self.width

    @nn.compact
    def __call__(
        self, vector: Float[Array, "B w"], mask=None, keys: Key[Array, " B"] | None = None, *, capture: tuple[str, ...] = (), hook=None
    ) -> dict[str, Float[Array, "..."]]:
        """Returns `embedding [B embed_dim]`.

        Raises:
            ValueError: vectors of another width, whole numbers, a hook, or a capture.
        """
        if vector.ndim != 2 or vector.shape[1] != self.width or not jnp.issubdtype(vector.dtype, jnp.floating):
            raise ValueError(
                f"vectors of {vector.shape[1:]}, {vector.dtype}, but the tower takes ({self.width},), float32; change its options.width, "
                "or set config.data.transforms.<view>.name to 'stored'."
            )
        if hook is not None or capture:
            raise ValueError("vectors have no layers to hook or capture; use the tower that made them.")
        pool = read_out.make(self.pooling, self.pooling_options, "the vectors tower's options", dtype=self.dtype)
        pooled = dropout(pool(vector[:, None].astype(self.dtype)).astype(jnp.float32), self.dropout, keys, 0)
        if not self.embed_dim:
            return {"embedding": pooled}
        init = nn.initializers.normal(self.width**-0.5)
        return {"embedding": dense(self.embed_dim, ("embed", "output"), init=init, use_bias=False, name="projection")(pooled)}
