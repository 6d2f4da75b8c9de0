"""Numbers as TensorBoard's event files, written by the thread that has them.

tensorboardX's own SummaryWriter hands them to a thread through a queue of ten: where that thread dies, of a full disk for example,
the queue fills up and training waits in it for ever. Here the error reaches the caller.
"""

import pathlib
import time
from collections.abc import Mapping

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary


def tag(name: str) -> str:
    """A metric's name as TensorBoard allows it: `recall@1` becomes `recall_at_1`."""
    return name.replace("@", "_at_")


class Events:
    """An event file of its own in a folder; what was written is on disk when the call returns."""

    def __init__(self, folder: pathlib.Path, *, first_step: int | None = None, suffix: str = ""):
        """Opens the file.

        Args:
            folder: where; other files may be there, which are shown as one with this.
            first_step: readers hide from this step on what earlier files hold: a killed run logged more than it saved.
            suffix: of the file's name, which otherwise differs by the second.

        Raises:
            OSError: it cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._file = EventsWriter(str(folder / "events"), suffix)
        if first_step is not None:
            self._add(first_step, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """The numbers of one step; raises OSError where they cannot be written."""
        self._add(step, summary=Summary(value=[Summary.Value(tag=tag(name), simple_value=value) for name, value in metrics.items()]))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _add(self, step: int, **what) -> None:
        self._file.write_event(Event(wall_time=time.time(), step=step, **what))
        self._file.flush()
