"""Files of published sets in folders on this machine; what is missing is named with the option to change."""

import csv
import json
import pathlib
from collections.abc import Sequence


def find(folder: str, name: str, option: str = "path") -> pathlib.Path:
    """The path of a file; `option` is what names the folder in a config.

    Raises:
        ValueError: it is not there.
    """
    path = pathlib.Path(folder) / name
    if not path.is_file():
        raise ValueError(f"there is no file {path}; set options.{option} to the folder of the set, and the other options to what it holds.")
    return path


def read_json(folder: str, name: str, option: str = "path"):
    """What a JSON file holds."""
    return json.loads(find(folder, name, option).read_text(encoding="utf-8"))


def read_rows(folder: str, name: str, **dialect) -> list[list[str]]:
    """Rows of a CSV file, its header too."""
    with open(find(folder, name), newline="", encoding="utf-8") as file:
        return list(csv.reader(file, **dialect))


def one_of(value: str, choices: Sequence[str], option: str = "split") -> str:
    """The value.

    Raises:
        ValueError: it is none of the choices.
    """
    if value not in choices:
        raise ValueError(f"there is no {option} {value!r}; set options.{option} to one of: {', '.join(choices)}.")
    return value
