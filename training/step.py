"""One update: towers, a loss value per query, the one mean, the gradient, the optimizer. Pure; runs under `jit` on the mesh."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from core.paths import by_path, from_paths, matches
from losses.entries import Entry, mean_loss
from models.adapters import Adapters
from models.dual import LOG_SCALE_MAX, DualEncoder
from training import cached_gradients, health
from training.state import TrainState


def example_keys(seed: int, step: Array, views, rows: int) -> dict[str, Array]:
    """One key per view and row of the global batch, from (seed, step, view, row): no device index, so no mesh changes a mask."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    row = jax.vmap(jax.random.fold_in, (None, 0))
    return {view: row(jax.random.fold_in(key, index), jnp.arange(rows)) for index, view in enumerate(sorted(views))}


def make_step(
    model: DualEncoder,
    adapters: Adapters,
    found: list[Entry],
    tx: optax.GradientTransformation,
    learning_rate: Callable,
    *,
    seed: int,
    freeze=(),
    ema_decay: float | None = None,
    microbatches: int = 1,
    shards: int = 1,
) -> Callable[[TrainState, dict[str, Array], Array], tuple[TrainState, dict[str, Array]]]:
    """Builds `step(state, batch, measure) -> (state, metrics)`.

    Args:
        model: the dual encoder.
        adapters: those of its matrices; the model sees them merged.
        found: bound losses.
        tx: works on the flat dict of trainable parameters.
        learning_rate: by step, for the log.
        seed: of dropout.
        freeze: path patterns of parameters that get no gradient, update, optimizer state or average.
        ema_decay: of the average of trainable parameters; None keeps none.
        microbatches: parts in which the towers see the batch; the loss and the gradient are those of the whole batch.
        shards: parts that the mesh splits the batch into.

    The batch holds views, ids and `stop` (any process's wish to stop, so that all agree on the step). `measure` switches the
    costlier health metrics on. Metrics are replicated scalars.
    """
    inputs = found[0].arrays
    pair, labels = (inputs.get("zq"), inputs.get("zp")), (inputs.get("id"), inputs.get("alias"))

    def step(state: TrainState, batch: dict[str, Array], measure: Array):
        flat = by_path(state.params)
        frozen = {path: leaf for path, leaf in flat.items() if matches(path, freeze)}
        trainable = {path: leaf for path, leaf in flat.items() if path not in frozen}
        rows = next(iter(batch.values())).shape[0]
        keys = example_keys(seed, state.step, model.views, rows)

        def loss_of(trainable):
            params = adapters.merge(from_paths(trainable | frozen))
            arrays = cached_gradients.apply(model, params, batch, keys, microbatches, shards)
            arrays |= {name: a for name, a in batch.items() if name not in model.views}
            total, parts = mean_loss(found, arrays)
            parts = {f"train/{name}": value for name, value in parts.items()}
            return total, (parts, {name: a for name, a in arrays.items() if a.ndim == 0 or name in pair})

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
            ema = {path: decay * ema[path] + (1.0 - decay) * leaf for path, leaf in trainable.items()}
        metrics = {
            "train/loss": loss,
            **parts,
            **health.measure(arrays, pair, [batch[name] for name in labels if name in batch], measure),
            "opt/grad_norm": optax.tree.norm(gradient),
            "opt/learning_rate": jnp.asarray(learning_rate(state.step), jnp.float32),
            "stop": jnp.max(batch["stop"]),
        }
        return TrainState(state.step + 1, from_paths(trainable | frozen), opt_state, ema), metrics

    return step


def start(
    model: DualEncoder, adapters: Adapters, tx: optax.GradientTransformation, example: Mapping[str, Any], *,
    seed: int, freeze=(), with_ema: bool,
) -> TrainState:  # fmt: skip
    """The state before the first step; pure, so that it can be traced for its shapes."""
    params = nn.unbox(model.init(jax.random.key(seed), dict(example))["params"]) | adapters.init(seed)
    flat = {path: leaf for path, leaf in by_path(params).items() if not matches(path, freeze)}
    return TrainState(jnp.zeros((), jnp.int32), params, tx.init(flat), jax.tree.map(jnp.copy, flat) if with_ema else {})
