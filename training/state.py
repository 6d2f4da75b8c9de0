"""What a run carries from step to step."""

from typing import Any

import flax.struct
import jax


@flax.struct.dataclass
class TrainState:
    """Plain arrays only; `step` counts finished updates. Parts that a run does not have are {}."""

    step: jax.Array
    params: Any
    opt_state: Any
    ema: Any  # exponential moving average of the trainable parameters by path
    momentum: Any = flax.struct.field(default_factory=dict)  # averages that losses read, by label and path
    carry: Any = flax.struct.field(default_factory=dict)  # what losses keep, by label and name

    def items(self) -> dict[str, Any]:
        """What a checkpoint stores, by item; `step` is the folder's name."""
        towers = {name: leaves for name, leaves in self.params.items() if name != "heads"}  # what an encoder reads
        heads = self.params["heads"] if "heads" in self.params else {}
        return {"params": towers, "heads": heads, "opt": self.opt_state, "ema": self.ema, "momentum": self.momentum, "carry": self.carry}

    @classmethod
    def of(cls, step: jax.Array, items: dict[str, Any]) -> "TrainState":
        """The inverse of `items`."""
        params = items["params"] | ({"heads": items["heads"]} if items["heads"] else {})
        return cls(step, params, items["opt"], items["ema"], items["momentum"], items["carry"])
