"""What is raised for a record that cannot be read, and the few words under which such records are counted."""

from collections.abc import Iterator, Sequence
from typing import Any

# Of files: gone (or changed under us), truncated. Of records: empty, missing (a part of it), malformed, encoding (not UTF-8),
# too_large (text or image), image (cannot be decoded). Anything else that a source raises: unreadable.
KINDS = ("gone", "truncated", "empty", "missing", "malformed", "encoding", "too_large", "image", "unreadable")


class BadRecord(Exception):
    """A record that cannot be read; batching replaces it by its successor and counts it.

    Args:
        reason: what was found, for people; names the file and the place in it.
        kind: one of `KINDS`, for counting.
        until: where the damage ends, if it goes beyond this record (a shard that is gone): the record with this number is the next to
            be tried.
        row: raised by a transform, which of its values it is about; batching finds it by trying, which takes longer, where it is None.
        more: of the same kind about other rows, so that a batch with several is made twice and not once for each.
    """

    def __init__(
        self, reason: str, kind: str = "unreadable", *, until: int | None = None, row: int | None = None, more: Sequence["BadRecord"] = ()
    ):
        super().__init__(reason)
        self.kind, self.until, self.row, self.more = kind, until, row, tuple(more)


def readable(table: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any] | None]:
    """All rows of a table in order; None for one that cannot be read."""
    for i in range(len(table)):
        try:
            yield table[i]
        except BadRecord:
            yield None
