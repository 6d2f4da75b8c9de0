"""Python functions and their docstrings, read from the files of the installed library: real pairs of texts without a download.

Files are parsed, never imported.
"""

import ast
import functools
import importlib.util
import inspect
import os
import pathlib
import re
import sysconfig
import textwrap
import tokenize
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.near_duplicates import joined
from input_pipeline.tasks import RankingTask, ranking_task

SPLITS = ("train", "test")
# Held out by name, so that the split is the same in every version of Python: small and large, of many subjects, and none with a twin
# elsewhere (`decimal` has `_pydecimal`).
HELDOUT = (
    "argparse", "asyncio", "calendar", "configparser", "csv", "difflib", "fnmatch", "graphlib", "gzip", "heapq", "http", "imaplib",
    "json", "pathlib", "random", "shutil", "statistics", "subprocess", "tarfile", "textwrap", "threading", "zipfile",
)  # fmt: skip
# Tests say little in words; site-packages is not the standard library; idle_test is where idlelib keeps its tests.
SKIPPED = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"})
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")  # of an identifier
MIN_WORDS = 3  # "See above." asks for nothing


class Function(NamedTuple):
    """A documented function: its top-level package, the first paragraph of its docstring, and its body."""

    package: str
    query: str
    passage: str


class Docstrings:
    """About 6,400 functions of the standard library, and those of installed packages that are named.

    Records have `query` (the docstring's first paragraph, on one line), `passage` (the body without the docstring, dedented) and
    `id`, which records share that agree in either text, directly or through others. A pair that occurs twice is one record.

    Args:
        split: `test` has the functions of the packages in `HELDOUT`, `train` the others without those that share an `id` with `test`.
        packages: installed packages that are read beside the standard library, by their import name; all of them are in `train`.
        signature: begin each passage with the `def` line, whose names often give the answer away.
        names: `train` has undocumented functions too, with the words of their name as the query.
        every: `train` has one function in so many, in the order of the files: what little supervision gives.

    Raises:
        ValueError: no such split, a package that is not installed, or `every` below 1.
    """

    def __init__(
        self, *, split: str = "train", packages: tuple[str, ...] = (), signature: bool = False, names: bool = False, every: int = 1
    ):
        if every < 1:
            raise ValueError(f"options.every is {every}; set it to 1 for all functions, to 10 for one in ten.")
        if split not in SPLITS:
            raise ValueError(f"Docstrings has no split {split!r}; set options.split to one of: {', '.join(SPLITS)}.")
        # The test split need not read what it leaves out.
        train = split == "train"
        found = list(folders(packages if train else ()))
        read = (f for folder in found for f in _functions(*folder, signature, names and train, () if train else HELDOUT))
        # A copy elsewhere leaves the test split whole.
        functions = list({(f.package in HELDOUT, f.query, f.passage): f for f in read}.values())
        ids = _shared_ids(functions)
        test = np.array([function.package in HELDOUT for function in functions])
        kept = np.flatnonzero(~np.isin(ids, ids[test]))[::every] if train else np.flatnonzero(test)
        self.counts = {"id": int(ids.max()) + 1}
        self._functions, self._ids = [functions[i] for i in kept], ids[kept]

    def __len__(self) -> int:
        return len(self._functions)

    def __getitem__(self, i: int) -> dict[str, Any]:
        _, query, passage = self._functions[i]
        return {"query": query, "passage": passage, "id": int(self._ids[i])}

    def texts(self) -> Iterator[str]:
        """Distinct docstrings and bodies, in the order of the files."""
        return iter(dict.fromkeys(text for function in self._functions for text in function[1:]))

    def ranking(self) -> RankingTask:
        """Every distinct docstring against every distinct body of the split; the bodies it describes are relevant."""
        return ranking_task([function[1:] for function in self._functions])


def folders(packages: tuple[str, ...]) -> Iterator[tuple[str, pathlib.Path]]:
    """(prefix of module names, folder) of the standard library and of each package."""
    yield "", pathlib.Path(sysconfig.get_path("stdlib"))
    for name in packages:
        spec = importlib.util.find_spec(name)  # of a top-level name: looks for the files, imports nothing
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(f"no package {name!r} is installed; leave it out of options.packages, or install it.")
        yield name, pathlib.Path(spec.submodule_search_locations[0])


@functools.lru_cache(maxsize=4)  # several seconds, and a process that trains several runs needs them again
def _functions(prefix: str, root: pathlib.Path, signature: bool, names: bool, only: tuple[str, ...]) -> tuple[Function, ...]:
    """The functions below a folder, file by file in the order of their paths."""
    trees = files(prefix, root, only)
    read = ((package, pair(node, lines, signature, names)) for package, tree, lines in trees for node in definitions(tree))
    return tuple(Function(package, *found) for package, found in read if found)


def files(prefix: str, root: pathlib.Path, only: tuple[str, ...] = ()) -> Iterator[tuple[str, ast.Module, list[str]]]:
    """(top-level package, tree, lines) of each Python file below a folder, of the packages `only` if there are any; what does not parse
    is passed over."""
    for path in _files(root):
        package = prefix or path.relative_to(root).parts[0].removesuffix(".py")
        if only and package not in only:
            continue
        try:
            with tokenize.open(path) as file:  # minds the encoding that a file declares
                text = file.read()
            tree = ast.parse(text)
        except (SyntaxError, ValueError):  # templates, files for other versions of Python
            continue
        yield package, tree, text.splitlines()


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The Python files below a folder in the order of their paths."""
    found = []
    for path, folders, names in os.walk(folder):
        folders[:] = set(folders) - SKIPPED
        found += [pathlib.Path(path, name) for name in names if name.endswith(".py")]
    return sorted(found)


def definitions(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method below a node, in the order of the file; expressions, most of a tree, are not looked into."""
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
            yield inner
        if isinstance(inner, ast.stmt | ast.excepthandler | ast.match_case):
            yield from definitions(inner)


def pair(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str], signature: bool, names: bool) -> tuple[str, str] | None:
    """Query and body of a function, or None for one that lacks either."""
    docstring = ast.get_docstring(node)
    body = node.body if docstring is None else node.body[1:]
    if docstring is None:
        query = " ".join(WORD.findall(node.name)).lower() if names and not node.name.startswith("__") else ""
    else:
        query = " ".join(inspect.cleandoc(docstring).split("\n\n")[0].split())
        query = query if len(query.split()) >= MIN_WORDS else ""
    if not query or all(map(_is_empty, body)):
        return None
    # The line after the docstring, which may hold a comment.
    start = body[0].lineno - 1 if docstring is None else node.body[0].end_lineno
    one_line = body[0].lineno <= start or body[0].lineno == node.lineno
    passage = ast.unparse(body) if one_line else textwrap.dedent("\n".join(lines[start : body[-1].end_lineno])).strip()
    if signature:
        head = textwrap.dedent("\n".join(lines[node.lineno - 1 : node.body[0].lineno - 1])).strip()
        passage = f"{head}\n{textwrap.indent(passage, '    ')}"
    return query, passage


def _is_empty(statement: ast.stmt) -> bool:
    """Whether a statement only stands where a body must be: `pass`, `...`, or an error that says so."""
    if isinstance(statement, ast.Raise) and statement.exc is not None:
        return "NotImplemented" in ast.unparse(statement.exc)
    return isinstance(statement, ast.Pass) or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))


def _shared_ids(functions: list[Function]) -> np.ndarray:
    """Dense int32 numbers, equal for functions that a chain of equal texts joins."""
    numbers: dict[tuple[str, str], int] = {}
    nodes = np.array([[numbers.setdefault(node, len(numbers)) for node in (("q", f.query), ("p", f.passage))] for f in functions])
    return np.unique(joined(len(numbers), nodes[:, 0], nodes[:, 1])[nodes[:, 0]], return_inverse=True)[1].astype(np.int32)
