"""Weights of a loss that change while it is active, by the name a config uses; `t` counts the steps since its `from_step`."""

import jax.numpy as jnp
from jaxtyping import Array


def linear(t: Array, *, start: float = 0.0, end: float = 1.0, over_steps: int = 1000) -> Array:
    """A straight line from `start` to `end`, which stays."""
    return start + (end - start) * jnp.clip(t / over_steps, 0.0, 1.0)


def cosine(t: Array, *, start: float = 1.0, end: float = 0.0, over_steps: int = 1000) -> Array:
    """Half a cosine from `start` to `end`, which stays."""
    return end + (start - end) * (1 + jnp.cos(jnp.pi * jnp.clip(t / over_steps, 0.0, 1.0))) / 2


def inverse(t: Array, *, start: float = 0.01, every_steps: int = 100) -> Array:
    """`start`, a half, a third of it and so on: start / (1 + whole periods)."""
    return start / (1.0 + t // every_steps)


SCHEDULES = {"cosine": cosine, "inverse": inverse, "linear": linear}
