"""A file of JSON lines that grows while a run goes on, and no outage of its disk ends the run."""

import json
import logging
import pathlib
from collections.abc import Mapping

log = logging.getLogger(__name__)


class Lines:
    """Appends objects, one to a line; what cannot be written now (a full disk, a share that is gone) waits for the next one.

    Args:
        path: of the file; lines that are there stay, and one that a kill cut short is ended.
    """

    def __init__(self, path: pathlib.Path):
        self._path, self._waiting = path, []
        # What a killed run left of its last line must not swallow the next one.
        self._torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")

    def add(self, value: Mapping) -> None:
        """Writes what waits, and this."""
        self._waiting.append(json.dumps(value) + "\n")
        self.flush()

    def flush(self) -> None:
        """Writes what waits, if there is anything."""
        if not self._waiting:
            return
        try:
            with open(self._path, "a") as file:
                file.write("\n" * self._torn + "".join(self._waiting))
            self._waiting, self._torn = [], False
        except OSError as error:
            if not self._torn:
                log.warning("%s cannot be written now, its lines wait: %s", self._path, error)
            self._torn = True  # a part of a line may be there
