"""Where the processes of a run wait for each other."""

import orbax.checkpoint as ocp


def meet(what: str, seconds: float) -> None:
    """Returns when every process is here; at once in a process that is alone.

    The coordination service counts them, so this is no collective: on CPU gloo gives those 30 seconds, while starts and
    compilations on a busy machine may lie further apart.

    Args:
        what: where they meet; the same in every process.
        seconds: how long to wait.

    Raises:
        RuntimeError: not all came in time, or one was lost.
    """
    try:
        ocp.multihost.get_barrier_sync_fn()(key=what, timeout_ms=int(seconds * 1000))
    except Exception as error:  # the service's own kinds have no public name
        raise RuntimeError(f"not every process came to {what!r} within {seconds:.0f} s, or one was lost: {error}") from error
