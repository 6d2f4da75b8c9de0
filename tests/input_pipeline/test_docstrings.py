"""What is read out of a file of functions, and that the splits of the library stay apart."""

import ast
import sys
import textwrap

import pytest

from input_pipeline.sources import docstrings
from input_pipeline.sources.docstrings import HELDOUT, Docstrings

FILE = '''
import missing_module_that_would_fail

class A:
    def first(self, x):
        """Do the
        first   thing.

        At length.
        """
        # how
        return x + 1

    async def second(self): "Say what this does."; return self.first(2)

def outer():
    def inner(y):
        """Hand back the argument."""
        if y:
            return y
    try:
        return inner
    except ValueError:
        def in_handler():
            """Stand in for it."""
            return None
        return in_handler

def short():
    """Two words."""
    return 1

def empty():
    """A body without anything."""
    pass

def abstract():
    """What subclasses have to write."""
    raise NotImplementedError("write it")

def bare():
    """Only a docstring stands here."""

def undocumented():
    return 2
'''


def read(folder, text, name="module.py", **options):
    (folder / name).write_text(text, encoding="utf-8")
    found = docstrings._functions("", folder, options.get("signature", False), options.get("names", False), options.get("only", ()))
    return [f[1:] for f in found]


def test_functions_are_read_in_the_order_of_the_file(tmp_path):
    assert read(tmp_path, FILE) == [
        ("Do the first thing.", "# how\nreturn x + 1"),
        ("Say what this does.", "return self.first(2)"),
        ("Hand back the argument.", "if y:\n    return y"),
        ("Stand in for it.", "return None"),
    ]


def test_undocumented_functions_are_asked_for_by_the_words_of_their_name(tmp_path):
    names = "def readHTTPLines2(x):\n    # why\n    return x\n\ndef __len__(self):\n    return 3\n\ndef one_line(): return 1\n"
    documented = read(tmp_path, FILE)
    more = [pair for pair in read(tmp_path, FILE + names, names=True) if pair not in documented]
    assert [query for query, _ in more] == ["outer", "undocumented", "read http lines 2", "one line"]
    assert [passage for _, passage in more[1:]] == ["return 2", "return x", "return 1"]
    assert read(tmp_path, FILE + names) == documented


def test_a_signature_can_lead_the_body(tmp_path):
    pairs = dict(read(tmp_path, FILE, signature=True))
    assert pairs["Hand back the argument."] == "def inner(y):\n    if y:\n        return y"


@pytest.mark.parametrize("text", ["def broken(:\n    pass", "x = '\0'", "# coding: no-such-code\n"])
def test_a_file_that_does_not_parse_has_no_functions(tmp_path, text):
    assert read(tmp_path, text) == []


def test_tests_and_other_packages_are_passed_over(tmp_path):
    for name in ("test", "site-packages", "kept", "left"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.py").write_text(textwrap.dedent(FILE))
    packages = [f.package for f in docstrings._functions("", tmp_path, False, False, ())]
    assert set(packages) == {"kept", "left"}
    assert {f.package for f in docstrings._functions("", tmp_path, False, False, ("kept",))} == {"kept"}
    assert {f.package for f in docstrings._functions("named", tmp_path, False, False, ())} == {"named"}


@pytest.fixture(scope="module")
def splits():
    return {split: Docstrings(split=split) for split in docstrings.SPLITS}


def test_the_set_is_as_large_as_the_documents_say(splits):
    """Versions of Python differ a little; 3.11 has 5,356 and 951."""
    assert 4_000 < len(splits["train"]) < 8_000 and 800 < len(splits["test"]) < 1_200
    assert {f.package for f in splits["test"]._functions} == set(HELDOUT)


def test_no_text_is_in_both_splits(splits):
    assert not set(splits["train"].texts()) & set(splits["test"].texts())
    assert not {f.package for f in splits["train"]._functions} & set(HELDOUT)


def test_ids_are_equal_where_a_text_is(splits):
    for source in splits.values():
        by_text = {}
        for i in range(len(source)):
            record = source[i]
            for side in ("query", "passage"):
                assert by_text.setdefault((side, record[side]), record["id"]) == record["id"]
        assert len({(source[i]["query"], source[i]["passage"]) for i in range(len(source))}) == len(source)


def test_a_chain_of_equal_texts_has_one_id():
    found = docstrings._shared_ids([docstrings.Function("", *pair) for pair in ("ax", "by", "bx", "cz", "dw", "dz")])
    assert found.tolist() == [found[0]] * 3 + [found[3]] * 3 and found[0] != found[3] and set(found) == {0, 1}


def test_a_docstring_names_no_body_that_is_not_its_own(splits):
    task, source = splits["test"].ranking(), splits["test"]
    pairs = {(task.queries[q], task.corpus[p]) for q, p in task.relevant}
    assert pairs == {(source[i]["query"], source[i]["passage"]) for i in range(len(source))}


def test_bodies_parse_and_hold_no_docstring(splits):
    for i in range(0, len(splits["test"]), 10):
        record = splits["test"][i]
        tree = ast.parse("async def f():\n" + textwrap.indent(record["passage"], "    "))
        assert " ".join((ast.get_docstring(tree.body[0]) or "").split()) != record["query"]


def test_copies_of_held_out_functions_stay_out_and_nothing_is_imported(tmp_path, monkeypatch):
    library, package, empty = tmp_path / "lib", tmp_path / "site" / "vendored", tmp_path / "empty"
    empty.mkdir()
    for path, text in (
        (library / "heapq.py", FILE), (library / "other.py", FILE.replace("Stand in", "Stand")),
        (package / "copy.py", FILE.replace("Hand back", "Give back")), (package / "__init__.py", "raise ImportError('files are parsed')"),
        (package.parent / "more" / "new.py", 'def f(x):\n    """Do something new."""\n    return x * x\n'),
        (package.parent / "more" / "copy.py", FILE.replace("Hand back", "Give back")), (package.parent / "more" / "__init__.py", ""),
    ):  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(docstrings.sysconfig, "get_path", lambda name: str(library))
    monkeypatch.syspath_prepend(str(package.parent))
    train, test = Docstrings(packages=("vendored",)), Docstrings(split="test")
    assert [test[i]["query"] for i in range(len(test))] == [query for query, _ in read(empty, FILE)]
    assert len(train) == 0 and "vendored" not in sys.modules  # what has another docstring has a body of the test split
    more = Docstrings(packages=("vendored", "more"))
    assert [more[i]["query"] for i in range(len(more))] == ["Do something new."]


def test_mistakes_name_the_option():
    with pytest.raises(ValueError, match="set options.split to one of: train, test"):
        Docstrings(split="dev")
    with pytest.raises(ValueError, match="no package 'no_such_package' is installed"):
        Docstrings(packages=("no_such_package",))
