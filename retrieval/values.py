"""Raw values out of files, in an order of their own: texts from JSON lines, Parquet or plain text, images from a folder."""

import hashlib
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet as parquet
from PIL import Image

from core.config import ConfigError, choose
from input_pipeline.tokenize.clean import as_text

SAMPLE = 1 << 20  # bytes from each end of a file that tell it from another


class Value(NamedTuple):
    """A text or the path of an image, and what names it; `fault` says why there is none."""

    id: str
    value: Any
    fault: str | None = None


class Values(NamedTuple):
    """What an input holds: `read()` starts from its first row each time; `total` rows, or None where only reading would tell."""

    kind: str
    read: Callable[[], Iterator[Value]]
    total: int | None
    identity: dict[str, Any]


def open_values(path: str | pathlib.Path, column: str = "text", id_column: str | None = None) -> Values:
    """The rows of an input, chosen by its ending.

    `.jsonl` and `.parquet` have a column of texts. In `.txt` each line is a text, the empty line too: row i is line i, with bytes
    that are not UTF-8 replaced by U+FFFD. A folder gives its images, those of subfolders too, by path.

    Args:
        path: the file or folder.
        column: of the texts.
        id_column: of names; by default the number of the row, from 0. Images are named by their path in the folder.

    Raises:
        FileNotFoundError: nothing there, or a folder without images.
        ConfigError: another ending, a Parquet file that is broken, or a column that it lacks.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give --input a file ({', '.join(READERS)}) or a folder of images.")
    if path.is_dir():
        return _folder(path)
    read = choose(READERS, path.suffix.lower(), f"--input={path}: its ending")
    size, identity = path.stat().st_size, {"name": path.name, "bytes": path.stat().st_size, "ends": _ends(path)}
    identity |= {} if read is _lines else {"column": column, "id_column": id_column}
    if read is _parquet:
        try:
            file = parquet.ParquetFile(path)
        except (pyarrow.ArrowException, OSError) as error:
            raise ConfigError(f"{path} is no complete Parquet file ({error}); write or download it again.") from error
        for name in (column, id_column):
            if name is not None and name not in file.schema_arrow.names:
                raise ConfigError(
                    f"{path} has no column {name!r}; it has: {', '.join(file.schema_arrow.names)}. Set --column or --id_column."
                )
        return Values("text", lambda: read(path, column, id_column), file.metadata.num_rows, identity)
    return Values("text", lambda: read(path, column, id_column), _count_lines(path) if size else 0, identity)


def _jsonl(path: pathlib.Path, column: str, id_column: str | None) -> Iterator[Value]:
    with open(path, "rb") as file:
        for number, line in enumerate(file):
            try:
                row = json.loads(line)
            except ValueError as error:  # not JSON, or not UTF-8
                yield Value(str(number), None, f"not JSON: {error}")
                continue
            yield _checked(number, row if isinstance(row, Mapping) else {}, column, id_column)


def _parquet(path: pathlib.Path, column: str, id_column: str | None) -> Iterator[Value]:
    number, columns = 0, [column] if id_column is None else [column, id_column]
    for batch in parquet.ParquetFile(path).iter_batches(1024, columns=columns):
        for row in batch.to_pylist():
            yield _checked(number, row, column, id_column)
            number += 1


def _checked(number: int, row: Mapping, column: str, id_column: str | None) -> Value:
    for name in (column,) if id_column is None else (id_column, column):
        if name not in row:
            return Value(str(number), None, f"no {name!r}; there are: {', '.join(map(str, row)) or 'no fields'}")
    name, text = str(number) if id_column is None else as_text(str(row[id_column])), row[column]
    return Value(name, text) if isinstance(text, str) else Value(name, None, f"{column!r} is {type(text).__name__}, not text")


def _lines(path: pathlib.Path, column: str, id_column: str | None) -> Iterator[Value]:
    with open(path, "rb") as file:  # bytes: only \n ends a line, not the dozen others that text mode and str.splitlines know
        for number, line in enumerate(file):
            yield Value(str(number), line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", errors="replace"))


READERS = {".jsonl": _jsonl, ".parquet": _parquet, ".txt": _lines}


def _folder(path: pathlib.Path) -> Values:
    endings = Image.registered_extensions()
    names = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.suffix.lower() in endings and p.is_file())
    if not names:
        raise FileNotFoundError(f"{path} holds no images; Pillow reads files that end in .png, .jpg, .webp and others.")
    digest = hashlib.sha256(
        "\n".join(f"{name} {(path / name).stat().st_size}" for name in names).encode("utf-8", "surrogateescape")
    ).hexdigest()[:16]
    return Values("image", lambda: (Value(as_text(name), path / name) for name in names), len(names), {"name": path.name, "files": digest})


def _count_lines(path: pathlib.Path) -> int:
    lines, last = 0, b"\n"
    with open(path, "rb") as file:
        while chunk := file.read(SAMPLE):
            lines, last = lines + chunk.count(b"\n"), chunk[-1:]
    return lines + (last != b"\n")


def _ends(path: pathlib.Path) -> str:
    """Digest of a file's first and last bytes: the whole of a large one would take longer to read than to tell apart."""
    with open(path, "rb") as file:
        first = file.read(SAMPLE)
        file.seek(max(path.stat().st_size - SAMPLE, 0))
        return hashlib.sha256(first + file.read(SAMPLE)).hexdigest()[:16]
