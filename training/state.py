"""What a run carries from step to step."""

from typing import Any

import flax.struct
import jax


@flax.struct.dataclass
class TrainState:
    """Plain arrays only; `step` counts finished updates."""

    step: jax.Array
    params: Any
    opt_state: Any
    ema: Any  # exponential moving average of the trainable parameters by path, or {}

    def items(self) -> dict[str, Any]:
        """What a checkpoint stores, by item; `step` is the folder's name."""
        return {"params": self.params, "opt": self.opt_state, "ema": self.ema}
