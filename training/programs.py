"""The compiled step: a program for each shape of batch, first called when every process has it."""

import contextlib
import logging
from collections.abc import Callable, Mapping
from functools import partial

import jax
from jax.stages import Compiled

from core import mesh as meshes
from core.processes import meet
from training.run import Run
from training.state import TrainState

WAIT_SECONDS = 3600.0  # for the slowest process; a watchdog ends the run earlier where one is set

log = logging.getLogger(__name__)


def compile_step(run: Run, state: TrainState, batch: Mapping, measure, active: tuple[str, ...] | None = None) -> Compiled:
    """The program of a step for arguments of these shapes, concrete or abstract; the state is donated, and stays where it lies.

    `active` are labels of its losses, None all of them.
    """
    shardings = jax.tree.map(lambda s: s.sharding, run.abstract)
    update = jax.jit(partial(run.step, active=active), donate_argnums=0, out_shardings=(shardings, meshes.replicated(run.mesh)))
    return update.lower(state, batch, measure).compile()


class Programs:
    """`(state, batch, measure, active) -> (state, metrics)`; compiles for each new shape of batch (texts padded to another length) and
    each new set of active losses.
    """

    def __init__(self, run: Run, compiling: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext):
        """Compiles nothing yet; what it does later happens inside of `compiling()`."""
        self._run, self._compiled, self._compiling = run, {}, compiling

    def __call__(self, state: TrainState, batch: Mapping[str, jax.Array], measure, active: tuple[str, ...] | None = None):
        shapes = tuple((name, array.shape) for name, array in batch.items())
        if (shapes, active) not in self._compiled:
            with self._compiling():
                self._compiled[shapes, active] = compile_step(self._run, state, batch, measure, active)
                arrays, losses = ", ".join(f"{name}{list(shape)}" for name, shape in shapes), "" if active is None else ", ".join(active)
                log.info("compiled the step for %s%s", arrays, losses and f"; losses: {losses}")
                meet(f"step compiled {len(self._compiled)}", WAIT_SECONDS)
        return self._compiled[shapes, active](state, batch, measure)
