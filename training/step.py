"""One update: towers, a loss value per query, the one mean, the gradient, the optimizer. Pure; runs under `jit` on the mesh."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from core.paths import by_path, from_paths, matches
from losses.entries import Entry, mean_loss
from models.dual import LOG_SCALE_MAX, row_axis
from training import carries, health
from training.carries import Carry
from training.forward import Forward
from training.state import TrainState


def make_step(
    forward: Forward,
    found: list[Entry],
    tx: optax.GradientTransformation,
    learning_rate: Callable,
    *,
    freeze=(),
    ema_decay: float | None = None,
    kept: Sequence[Carry] = (),
) -> Callable[[TrainState, dict[str, Array], Array], tuple[TrainState, dict[str, Array]]]:
    """Builds `step(state, batch, measure, *, active=None) -> (state, metrics)`.

    Args:
        forward: from parameters and batch to named arrays.
        found: bound losses.
        tx: works on the flat dict of trainable parameters.
        learning_rate: by step, for the log.
        freeze: path patterns of parameters that get no gradient, update, optimizer state or average.
        ema_decay: of the average of trainable parameters; None keeps none.
        kept: carries, which move after the gradient.

    `active` are labels of the losses of this step, None all of them: there is a program for each set of them. The batch holds views,
    ids and `stop` (any process's wish to stop, so that all agree on the step). `measure` switches the costlier health metrics on.
    Metrics are replicated scalars.
    """
    carried = [name for carry in kept for name in carry.inputs.values()]

    def step(state: TrainState, batch: dict[str, Array], measure: Array, *, active: tuple[str, ...] | None = None):
        chosen = [entry for entry in found if active is None or entry.label in active]
        inputs = chosen[0].arrays
        pair, labels = (inputs.get("zq"), inputs.get("zp")), (inputs.get("id"), inputs.get("alias"))
        wanted = {*pair, "logit_scale", "logit_bias", *carried}
        flat = by_path(state.params)
        frozen = {path: leaf for path, leaf in flat.items() if matches(path, freeze)}
        trainable = {path: leaf for path, leaf in flat.items() if path not in frozen}
        beside = forward.beside(flat, state.momentum, batch, state.step) | carries.named(state.carry)

        def loss_of(trainable):
            arrays = forward.towers(trainable | frozen, batch, state.step) | beside
            total, parts = mean_loss(chosen, arrays, state.step)
            parts = {f"train/{name}": value for name, value in parts.items()}
            return total, (parts, {name: a for name, a in arrays.items() if name in wanted})

        (loss, (parts, arrays)), gradient = jax.value_and_grad(loss_of, has_aux=True)(trainable)
        updates, opt_state = tx.update(gradient, state.opt_state, trainable)
        trainable = optax.apply_updates(trainable, updates)
        if "log_logit_scale" in trainable:
            # After the update, on the logarithm: clipping the scale itself would cut its gradient.
            trainable["log_logit_scale"] = jnp.clip(trainable["log_logit_scale"], 0.0, LOG_SCALE_MAX)
        ema = state.ema
        if ema_decay is not None:
            # The average starts as the parameters themselves and warms up: early on, (1 + step) / (10 + step) forgets the start.
            decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
            ema = {path: decay * average + (1.0 - decay) * trainable[path] for path, average in ema.items()}
        momentum = {m.label: m.move(state.momentum[m.label], trainable) for m in forward.momentum}
        carry = carries.update(kept, state.carry, arrays)
        metrics = {
            "train/loss": loss,
            **parts,
            **health.measure(arrays, pair, [batch[name] for name in labels if name in batch], measure),
            "opt/grad_norm": optax.tree.norm(gradient),
            "opt/learning_rate": jnp.asarray(learning_rate(state.step), jnp.float32),
            "stop": jnp.max(batch["stop"]),
        }
        return TrainState(state.step + 1, from_paths(trainable | frozen), opt_state, ema, momentum, carry), metrics

    return step


def heads_of(forward: Forward, key: Array, shapes: Mapping[str, Any], params) -> dict[str, Any]:
    """First parameters of all heads with their logical axes, for arrays of these shapes and parameters like these."""
    axis = {name: row_axis(name) for name, s in shapes.items() if s.shape}
    row = {name: jnp.zeros((*shapes[name].shape[:at], 1, *shapes[name].shape[at + 1 :]), shapes[name].dtype) for name, at in axis.items()}
    inits = [jax.random.fold_in(key, index) for index in range(len(forward.heads))]
    return {head.label: head.init(own, row | {"key": own}, by_path(params)) for head, own in zip(forward.heads, inits, strict=True)}


def start(
    forward: Forward, tx: optax.GradientTransformation, example: Mapping[str, Any], shapes: Mapping[str, Any], *, freeze=(),
    with_ema: bool, kept: Sequence[Carry] = (),
) -> TrainState:  # fmt: skip
    """The state before the first step; pure, so that it can be traced for its shapes. `shapes` are those of a step's arrays."""
    key = jax.random.key(forward.seed)
    params = nn.unbox(forward.model.init(key, dict(example))["params"]) | forward.adapters.init(forward.seed)
    if forward.heads:
        params["heads"] = nn.unbox(heads_of(forward, key, shapes, params))
    flat = {path: leaf for path, leaf in by_path(params).items() if not matches(path, freeze)}
    # Copies: a step donates each of them.
    momentum = {m.label: jax.tree.map(jnp.copy, m.begin(flat)) for m in forward.momentum}
    ema = {path: jnp.copy(leaf) for path, leaf in flat.items() if not path.startswith("heads/")} if with_ema else {}  # no encoder has them
    return TrainState(jnp.zeros((), jnp.int32), params, tx.init(flat), ema, momentum, carries.init(kept, shapes))
