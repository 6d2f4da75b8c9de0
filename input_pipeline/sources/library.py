"""Single texts of the installed Python library, prose and code: what a tower may read before it learns from pairs.

Files are parsed, never imported.
"""

import ast
import functools
import pathlib
from collections.abc import Iterator
from typing import Any

from input_pipeline.sources import docstrings

KINDS = ("body", "docstring")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Library:
    """Whole docstrings of modules, classes and functions, and bodies of functions, each distinct text a record of its own.

    Records have `text` and `id`. Splits are those of `docstrings`: `test` has the texts of the packages in `docstrings.HELDOUT`, `train`
    the others, without a text that `test` has too.

    Args:
        split: `train` or `test`.
        packages: installed packages that are read beside the standard library, by their import name; all of them are in `train`.
        kinds: of texts, `docstring` and `body`.

    Raises:
        ValueError: no such split or kind, or a package that is not installed.
    """

    def __init__(self, *, split: str = "train", packages: tuple[str, ...] = (), kinds: tuple[str, ...] = KINDS):
        if split not in docstrings.SPLITS or not kinds or set(kinds) - set(KINDS):
            raise ValueError(
                f"Library has split {split!r} and kinds {tuple(kinds)}; set options.split to one of: {', '.join(docstrings.SPLITS)}, and "
                f"options.kinds to some of: {', '.join(KINDS)}."
            )
        train = split == "train"
        only = () if train else docstrings.HELDOUT
        found = [pair for folder in docstrings.folders(packages if train else ()) for pair in _read(*folder, only, tuple(kinds))]
        heldout = {text for is_heldout, text in found if is_heldout}
        kept = (text for is_heldout, text in found if is_heldout != train)
        self._texts = [text for text in dict.fromkeys(kept) if not (train and text in heldout)]
        self.counts = {"id": len(self._texts)}

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"text": self._texts[i], "id": i}

    def texts(self) -> Iterator[str]:
        """All of them, in the order of the files."""
        return iter(self._texts)


@functools.lru_cache(maxsize=4)  # as of `docstrings`
def _read(prefix: str, root: pathlib.Path, only: tuple[str, ...], kinds: tuple[str, ...]) -> tuple[tuple[bool, str], ...]:
    """(whether its package is held out, text) of each text below a folder, in the order of the files."""
    every = ((package, text) for package, tree, lines in docstrings.files(prefix, root, only) for text in _texts(tree, lines, kinds))
    return tuple((package in docstrings.HELDOUT, text) for package, text in every)


def _texts(tree: ast.Module, lines: list[str], kinds: tuple[str, ...]) -> Iterator[str]:
    if "docstring" in kinds:
        for node in ast.walk(tree):
            text = (ast.get_docstring(node) if isinstance(node, DOCUMENTED) else None) or ""
            if len(text.split()) >= docstrings.MIN_WORDS:
                yield text
    if "body" in kinds:
        pairs = (docstrings.pair(node, lines, False, True) for node in docstrings.definitions(tree))
        yield from (pair[1] for pair in pairs if pair is not None)
