"""Images and captions in tables: JSONL, CSV, TSV, Parquet, TFRecord, ArrayRecord, or a folder that the `datasets` library saved.

Leaves finding and decoding rows to `input_pipeline/tables.py`, drawing captions to `input_pipeline/captioned.py`.
"""

import os
import posixpath

import numpy as np

from input_pipeline import columns, tables
from input_pipeline import files as files_
from input_pipeline.bad_records import BadRecord
from input_pipeline.captioned import MAX_CHARACTERS, Captioned, Lazy
from input_pipeline.tasks import ClassificationTask, Labelled


class Captions(Captioned):
    """Rows as records, or all rows with the same image as one record with several captions.

    A column of captions holds a text, a list of texts, or nothing. A column of images holds the bytes of a file, its path, or a struct of
    both, as the `datasets` library has it. Where a column of captions holds numbers that the file names (`ClassLabel`), captions are
    templates with these names, and `id` is the number, unless the option says otherwise.

    Args:
        files: paths, URLs or patterns (`data/*.parquet`, `part-{00..09}.jsonl`).
        image: column of images.
        text: columns of captions, together.
        root: folder or URL that paths of images are below; empty: the folder of the first file.
        by: column whose equal values make rows one record, `image` as a rule; empty: each row is one.
        id: column whose equal values make records positives of each other; empty: no records are.
        templates: what captions of classes are drawn from; `{}` becomes the name of the class.
        header: names of the columns of CSV or TSV files whose first row is data already.
        draw: False takes the first caption in training too.
        numbers: columns of numbers (scores, say) that records have beside image and text.
        max_characters: a longer caption makes a record bad.

    Raises:
        ValueError: no file, files without rows, a file of another kind, or a column that is missing.
    """

    def __init__(
        self, *, files: tuple[str, ...] = (), image: str = "image", text: tuple[str, ...] = ("text",), root: str = "", by: str = "",
        id: str = "", templates: tuple[str, ...] = ("a photo of a {}.",), header: tuple[str, ...] = (), draw: bool = True,
        numbers: tuple[str, ...] = (), max_characters: int = MAX_CHARACTERS,
    ):  # fmt: skip
        super().__init__(draw)
        open_columns = lambda *names: self._open(files, list(dict.fromkeys(names)), header)
        self._images, self._texts = open_columns(image), open_columns(*text, *numbers)  # apart: captions are read without images
        self._image, self._text, self._most, self._templates = image, tuple(text), max_characters, tuple(templates)
        self._numbers = tuple(numbers)
        self._root = root or posixpath.dirname(files_.expand(files)[0]) or os.curdir
        self._names = self._texts.names(text[0]) if len(text) == 1 else ()
        rows = np.arange(len(self._texts))
        if by:
            groups = columns.numbers(columns.of_rows(open_columns(by), by))
            rows = np.argsort(groups, kind="stable")
            first = np.flatnonzero(np.diff(groups[rows], prepend=-1))
            order = np.argsort(rows[first])  # records in the order of their first rows
            parts = [np.split(rows, first[1:])[k] for k in order]
            rows, self._bounds = np.concatenate(parts), np.cumsum([0, *map(len, parts)])
        else:
            self._bounds = np.arange(len(rows) + 1)
        self._rows, self.counts = rows, {"id": len(self._bounds) - 1}
        if id:
            values = list(columns.of_rows(open_columns(id), id))
            self._ids = columns.numbers(values[row] for row in rows[self._bounds[:-1]])
            self.counts = {"id": int(self._ids.max()) + 1}
        elif self._names:
            self.counts = {"id": len(self._names)}

    def _open(self, files: tuple[str, ...], names: list[str], header: tuple[str, ...]) -> tables.Table:
        return tables.open_rows(files, names, header)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def image(self, i: int) -> bytes:
        """The bytes of the image of record i.

        Raises:
            BadRecord: there is none, or it cannot be read.
        """
        row = int(self._rows[self._bounds[i]])
        return columns.image(self._images[row], self._image, row, self._root)

    def captions(self, i: int) -> list[str]:
        """The captions of record i that are not blank.

        Raises:
            BadRecord: something that is no text.
        """
        if self._names:
            return [template.format(self._names[self._label(i)].replace("_", " ")) for template in self._templates]
        found = []
        for row in self._rows[self._bounds[i] : self._bounds[i + 1]].tolist():
            values = self._texts[row]
            found += [text for name in self._text for text in columns.texts(values, name, row, self._most)]
        return found

    def id(self, i: int) -> int:
        """The class, or what the option says."""
        return self._label(i) if self._names and self._ids is None else super().id(i)

    def _label(self, i: int) -> int:
        row = int(self._rows[self._bounds[i]])
        label = self._texts[row].get(self._text[0])
        if not isinstance(label, int) or not 0 <= label < len(self._names):
            raise BadRecord(f"row {row + 1}: {self._text[0]!r} holds {label!r}, which is no class", "missing")
        return label

    def numbers(self, i: int) -> dict[str, float]:
        """The columns of numbers of record i, of its first row.

        Raises:
            BadRecord: something that is no number.
        """
        if not self._numbers:
            return {}
        row = int(self._rows[self._bounds[i]])
        values = self._texts[row]
        return {name: columns.number(values, name, f"row {row + 1}") for name in self._numbers}

    def groups(self) -> list[str]:
        """The class of each image, for plots."""
        return [self._names[label] for label in self.labelled().labels] if self._names else super().groups()

    def classification(self) -> ClassificationTask:
        """The class of each image.

        Raises:
            ValueError: the column of captions holds texts.
        """
        labels = self.labelled().labels
        return ClassificationTask(self.images(), labels, self._names, self._templates)

    def labelled(self) -> Labelled:
        """Images and the numbers of their classes.

        Raises:
            ValueError: the column of captions holds texts, or a row has no class.
        """
        if not self._names:
            raise ValueError(f"column {self._text[0]!r} holds captions and names no classes; set options.text to a column of classes.")
        return Labelled(self.images(), np.array(Lazy(len(self), self._label)[:], np.int32))
