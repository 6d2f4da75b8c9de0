"""Optimizers and schedules by name, with decay masks and clipping. Works on flat `path -> array` dicts of trainable parameters."""

import logging
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from core.config import bind, check_section, choose
from core.paths import matches
from training import rates

log = logging.getLogger(__name__)


def adamw(learning_rate, decay_mask, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.1):
    """Adam with decoupled weight decay. Source: Loshchilov & Hutter 2019, arXiv:1711.05101."""
    return optax.adamw(learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=decay_mask)


def adafactor(
    learning_rate, decay_mask, *, b1: float = 0.0, decay_rate: float = 0.8, weight_decay: float = 0.0, min_dim_size_to_factor: int = 128
):
    """Factored second moments: memory of rows + columns instead of rows x columns. Source: Shazeer & Stern 2018, arXiv:1804.04235.

    Weight decay is decoupled and multiplied by the learning rate, as with the other optimizers here.
    """
    return optax.chain(
        optax.scale_by_factored_rms(decay_rate=decay_rate, min_dim_size_to_factor=min_dim_size_to_factor),
        optax.clip_by_block_rms(1.0),
        optax.ema(b1, debias=False) if b1 else optax.identity(),
        optax.add_decayed_weights(weight_decay, decay_mask),
        optax.scale_by_learning_rate(learning_rate),
    )


def lion(learning_rate, decay_mask, *, b1: float = 0.9, b2: float = 0.99, weight_decay: float = 1.0):
    """Sign of an interpolated momentum. Source: Chen et al. 2023, arXiv:2302.06675."""
    return optax.lion(learning_rate, b1=b1, b2=b2, weight_decay=weight_decay, mask=decay_mask)


def sgd(learning_rate, decay_mask, *, momentum: float = 0.9, nesterov: bool = False, weight_decay: float = 0.0):
    """Momentum SGD with decoupled weight decay."""
    return optax.chain(
        optax.trace(momentum, nesterov=nesterov),
        optax.add_decayed_weights(weight_decay, decay_mask),
        optax.scale_by_learning_rate(learning_rate),
    )


OPTIMIZERS = {"adafactor": adafactor, "adamw": adamw, "lion": lion, "sgd": sgd}


def constant(peak: float, steps: int, warmup_steps: int):
    """Linear warm-up, then the peak."""
    return optax.schedules.warmup_constant_schedule(0.0, peak, max(1, warmup_steps))


def cosine(peak: float, steps: int, warmup_steps: int, *, end_factor: float = 0.0):
    """Linear warm-up, then half a cosine down to `end_factor` times the peak at the last step."""
    warmup_steps = max(1, warmup_steps)
    return optax.schedules.warmup_cosine_decay_schedule(0.0, peak, warmup_steps, max(steps, warmup_steps + 1), peak * end_factor)


def linear(peak: float, steps: int, warmup_steps: int, *, end_factor: float = 0.0):
    """Linear warm-up, then a straight line down to `end_factor` times the peak at the last step."""
    down = optax.schedules.linear_schedule(peak, peak * end_factor, max(1, steps - warmup_steps))
    return optax.schedules.join_schedules([optax.schedules.linear_schedule(0.0, peak, max(1, warmup_steps)), down], [max(1, warmup_steps)])


def rsqrt(peak: float, steps: int, warmup_steps: int, *, timescale: int = 1000, cooldown_steps: int = 0):
    """Linear warm-up, then peak / sqrt(1 + t / timescale), with a linear cool-down over the last `cooldown_steps`."""

    def schedule(step):
        warm = jnp.clip(step / max(1, warmup_steps), 0.0, 1.0)
        cool = jnp.clip((steps - step) / cooldown_steps, 0.0, 1.0) if cooldown_steps else 1.0
        return peak * warm * cool * jax.lax.rsqrt(1.0 + jnp.maximum(step - warmup_steps, 0) / timescale)

    return schedule


SCHEDULES = {"constant": constant, "cosine": cosine, "linear": linear, "rsqrt": rsqrt}
KEYS = (
    "name", "options", "learning_rate", "schedule", "warmup_steps", "no_decay", "freeze", "multipliers", "layer_decay", "clip_norm",
    "ema_decay",
)  # fmt: skip


def schedule(config, steps: int):
    """Learning rate by step, as `config.optimizer.schedule` describes it.

    Raises:
        ConfigError: unknown schedule or option.
    """
    check_section(config.schedule, ("name", "options"), "config.optimizer.schedule")
    make = bind(
        choose(SCHEDULES, config.schedule.name, "config.optimizer.schedule.name"),
        config.schedule.options,
        "config.optimizer.schedule.options",
    )
    return make(config.learning_rate, steps, config.warmup_steps)


def make(config, steps: int, paths: Sequence[str], freeze: Sequence[str] = ()) -> optax.GradientTransformation:
    """The gradient transformation that `config.optimizer` describes, for a flat dict of trainable parameters.

    Args:
        config: the section; `no_decay` holds path patterns that get no weight decay (biases, norms, the logit scale and bias),
            `clip_norm` bounds the global gradient norm before everything else (None: no clipping), `multipliers` and
            `layer_decay` give parts of the learning rate (`training/rates.py`).
        steps: of the whole run.
        paths: of all parameters, trainable or not.
        freeze: patterns of those that are not, which the log leaves out.

    Raises:
        ConfigError: unknown keys, choices or options.
    """
    check_section(config, KEYS, "config.optimizer")
    optimizer = bind(choose(OPTIMIZERS, config.name, "config.optimizer.name"), config.options, "config.optimizer.options")
    decay = lambda params: {path: not matches(path, config.no_decay) for path in params}
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    factors = rates.factors(paths, config.multipliers, config.layer_decay)
    for line in rates.summary({path: factor for path, factor in factors.items() if not matches(path, freeze)}):
        log.info("%s", line)
    scale = [rates.scale(factors)] if set(factors.values()) != {1.0} else []
    return optax.chain(clip, optimizer(schedule(config, steps), decay), *scale)
