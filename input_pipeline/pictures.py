"""Images of a set as they lie on disk, decoded when asked for: thousands of them stay a few megabytes."""

import pathlib
from collections.abc import Iterable, Sequence

from input_pipeline.bad_records import BadRecord
from input_pipeline.decode import pixels

NAMED = 5  # broken files that an error names


class Pictures(Sequence):
    """Images by name; `pictures[i]` is uint8 [H W 1] of a grey one, else [H W 3], a slice a list of them.

    A damaged image is an error when it is first asked for, never left out: a score over fewer images is another score. The error counts
    and names all damaged ones.

    Args:
        names: of the images, for errors.
        contents: bytes of their files, as many.
        inverted: black shows white and white black.

    Raises:
        ValueError: no image.
    """

    def __init__(self, names: Sequence[str], contents: Sequence[bytes], inverted: bool = False):
        if not len(names) or len(names) != len(contents):
            raise ValueError(f"{len(contents)} images with {len(names)} names; a set needs at least one, each with a name.")
        self.names, self.contents, self._inverted = list(names), list(contents), inverted

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        try:
            return 255 - pixels(self.contents[i]) if self._inverted else pixels(self.contents[i])
        except BadRecord as error:
            broken = self.broken()
            some = ", ".join(broken[:NAMED]) + (", ..." if len(broken) > NAMED else "")
            raise ValueError(f"{len(broken)} of {len(self)} images cannot be read: {some}; copy the set again.") from error

    def take(self, rows: Iterable[int]) -> "Pictures":
        """Some of the images, in the order of `rows`."""
        rows = [int(i) for i in rows]
        return Pictures([self.names[i] for i in rows], [self.contents[i] for i in rows], self._inverted)

    def broken(self) -> list[str]:
        """Names of the images that cannot be decoded."""
        return [name for name, content in zip(self.names, self.contents, strict=True) if not _reads(content)]


def from_folder(folder: str | pathlib.Path, names: Sequence[str]) -> Pictures:
    """The named files of a folder.

    Raises:
        ValueError: files that are missing, counted and named, or no name.
    """
    paths = [pathlib.Path(folder) / name for name in names]
    if missing := [path.name for path in paths if not path.is_file()]:
        some = ", ".join(missing[:NAMED]) + (", ..." if len(missing) > NAMED else "")
        raise ValueError(f"{len(missing)} of {len(paths)} images are not in {folder}: {some}; set options.path to the folder of the set.")
    return Pictures(names, [path.read_bytes() for path in paths])


def _reads(content: bytes) -> bool:
    try:
        pixels(content)
    except BadRecord:
        return False
    return True
