"""Images in a folder, or in one tar archive of it: the folders they lie in are classes, or files beside them hold captions.

Leaves drawing captions to `input_pipeline/captioned.py`.
"""

import os
import posixpath
from collections.abc import Mapping
from typing import Any

import numpy as np

from input_pipeline import columns, files, index_cache, tar
from input_pipeline.bad_records import BadRecord
from input_pipeline.captioned import MAX_CHARACTERS, Captioned
from input_pipeline.tasks import ClassificationTask, Labelled

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
CAPTIONS = ("classes", "files")


class ImageFolder(Captioned):
    """Images by number, in the order of their paths.

    With classes, a caption is a template with the words of the class, and `id` is the class, so all images of one are positives of each
    other. With files, `a.jpg` has its captions in `a.txt`, one on each line.

    Args:
        folder: path or URL of the folder, or of a tar archive that is not compressed.
        captions: `classes`, the name of the folder an image lies in, or `files`.
        templates: what captions of classes are drawn from; `{}` becomes the words of the class.
        names: words of a class, where they are not the name of its folder with spaces for underscores.
        draw: False takes the first caption in training too.
        max_characters: a longer caption makes a record bad.

    Raises:
        ValueError: no image, an image that lies in no folder of a class, or an unknown choice.
    """

    def __init__(
        self, *, folder: str = "data", captions: str = "classes", templates: tuple[str, ...] = ("a photo of a {}.",),
        names: Mapping[str, str] = {}, draw: bool = True, max_characters: int = MAX_CHARACTERS,
    ):  # fmt: skip
        super().__init__(draw)
        if captions not in CAPTIONS:
            raise ValueError(f"options.captions is {captions!r}; set it to one of: {', '.join(CAPTIONS)}.")
        if not templates or any(template.count("{}") != 1 for template in templates):
            raise ValueError(f"options.templates is {tuple(templates)}; each needs one {{}}, for the words of the class.")
        self._files, self._most = (_InTar if files.suffix(folder) == ".tar" else _InFolder)(folder), max_characters
        self._paths = [path for path in self._files.paths if posixpath.splitext(path.lower())[1] in IMAGES]
        if not self._paths:
            raise ValueError(f"{folder} holds no image ({', '.join(IMAGES)}); set options.folder to a folder that does.")
        self._classes: list[str] | None = None
        self.counts = {"id": len(self._paths)}
        if captions == "classes":
            self._set_classes(templates, names)

    def _set_classes(self, templates, names: Mapping[str, str]) -> None:
        folders = [posixpath.basename(posixpath.dirname(path)) for path in self._paths]
        if "" in folders:
            raise ValueError(f"{self._paths[folders.index('')]} lies in no folder of a class; set options.captions to 'files'.")
        found, labels = np.unique(folders, return_inverse=True)
        self._classes = [names[name] if name in names else name.replace("_", " ") for name in found.tolist()]
        self._ids, self._templates, self.counts = labels.astype(np.int32), tuple(templates), {"id": len(found)}

    def __len__(self) -> int:
        return len(self._paths)

    def image(self, i: int) -> bytes:
        """The bytes of image i.

        Raises:
            BadRecord: it cannot be read.
        """
        data = self._files.read(self._paths[i])
        if not data:
            raise BadRecord(f"{self._paths[i]} has no bytes", "empty")
        return data

    def captions(self, i: int) -> list[str]:
        """The captions of image i.

        Raises:
            BadRecord: the file for them is not there, or cannot be read.
        """
        if self._classes is not None:
            return [template.format(self._classes[self._ids[i]]) for template in self._templates]
        path = posixpath.splitext(self._paths[i])[0] + ".txt"
        if path not in self._files:
            raise BadRecord(f"{self._paths[i]} has no {posixpath.basename(path)} beside it", "missing")
        text = columns.as_text(self._files.read(path), path, self._most)
        return [line.strip() for line in text.splitlines() if line.strip()]

    def groups(self) -> list[str]:
        """The class of each image, for plots."""
        return super().groups() if self._classes is None else [self._classes[label] for label in self._ids]

    def classification(self) -> ClassificationTask:
        """The class of each image.

        Raises:
            ValueError: the folder has captions and no classes.
        """
        labels = self.labelled().labels
        return ClassificationTask(self.images(), labels, tuple(self._classes), self._templates)

    def labelled(self) -> Labelled:
        """Images and the numbers of their classes.

        Raises:
            ValueError: the folder has captions and no classes.
        """
        if self._classes is None:
            raise ValueError("options.captions is 'files', so no image has a class; set it to 'classes' to sort images into their folders.")
        return Labelled(self.images(), self._ids)


class _InFolder:
    """The files below a folder, by their path in it."""

    def __init__(self, folder: str):
        self._folder = folder.rstrip("/")
        self.paths = files.below(folder)
        self._known = frozenset(self.paths)

    def __contains__(self, path: str) -> bool:
        return path in self._known

    def read(self, path: str) -> bytes:
        return files.read(f"{self._folder}/{path}")


class _InTar:
    """The files of a tar archive, by their path in it."""

    def __init__(self, path: str):
        try:
            index = index_cache.cached(path, "tar 1", _members)
        except OSError as error:
            raise ValueError(f"{path} cannot be opened: {error}; set options.folder to a folder or a tar archive.") from error
        except BadRecord as error:
            raise ValueError(f"{path} is damaged: {error}; fetch it again.") from error
        names, places = index["names"].tolist(), index["places"].tolist()
        self._path, self._places = path, dict(zip(names, places, strict=True))
        self.paths = sorted(self._places)

    def __contains__(self, path: str) -> bool:
        return path in self._places

    def read(self, path: str) -> bytes:
        start, size = self._places[path]
        return files.read(self._path, start, start + size)


def _members(path: str) -> dict[str, Any]:
    with files.open_binary(path) as file:
        found = list(tar.members(file, files.identity(path)[1]))
    places = np.array([(member.start, member.size) for member in found], np.int64).reshape(-1, 2)
    return {"names": np.array([os.path.normpath(member.name) for member in found], np.str_), "places": places}
