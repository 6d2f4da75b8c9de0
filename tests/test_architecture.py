"""The import ladder and the house rules that a parser can see."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

# What each package may import from Tandem, beside itself.
LADDER = {
    "core": (),
    "models": ("core",),
    "losses": ("core",),
    "input_pipeline": ("core.config",),
    "training": ("core", "models", "losses", "input_pipeline", "interop"),
    "retrieval": ("core", "models", "input_pipeline", "interop"),
    "evals": ("core", "models", "losses", "input_pipeline", "retrieval", "interop"),  # losses: for the held-out loss
    "interop": ("core", "models", "input_pipeline"),
    "configs": ("configs.common",),
    "claims": ("core", "models", "losses", "input_pipeline", "training", "retrieval", "evals", "interop", "configs", "benchmarks"),
    "benchmarks": ("core", "models", "losses", "input_pipeline", "training", "retrieval", "evals", "interop", "configs", "claims"),
}
LADDER["launch"] = tuple(LADDER)  # anything
SPEAKS = ("launch", "benchmarks")  # print is their job
CONFIGS = {"config", "options", "entry", "model", "train", "optimizer", "checkpoint", "log"}  # names that hold a config section


def _files():
    found = [p for package in LADDER for p in sorted((ROOT / package).rglob("*.py"))]
    return [p.relative_to(ROOT) for p in found]


def _imports(tree):
    """Every module that a file may import, at its top or inside a function; `from a import b` counts as a and as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute: they name their package"
            yield from ((node.module, f"{node.module}.{alias.name}") for alias in node.names)


def _imported(trees, packages=tuple(LADDER)):
    """(path, package, module, full name) of every import in the packages given."""
    chosen = [(path, tree) for path, tree in trees.items() if path.parts[0] in packages]
    return [(path, path.parts[0], module, full) for path, tree in chosen for module, full in _imports(tree)]


def _within(name, allowed):
    return any(name == a or name.startswith(a + ".") for a in allowed)


@pytest.fixture(scope="module")
def trees():
    return {path: ast.parse((ROOT / path).read_text(), str(path)) for path in _files()}


def _report(trees, wrong, packages=tuple(LADDER)):
    """Places where `wrong(node)` holds, in the packages given."""
    return [
        f"{path}:{node.lineno}"
        for path, tree in trees.items() if path.parts[0] in packages
        for node in ast.walk(tree) if wrong(node)
    ]  # fmt: skip


def test_every_package_is_on_the_ladder():
    folders = {p.parent.relative_to(ROOT).parts[0] for p in ROOT.glob("*/*.py")}
    assert folders - {"tests"} <= set(LADDER)


def test_imports_go_down_the_ladder(trees):
    wrong = []
    for path, package, module, full in _imported(trees):
        top = module.split(".")[0]
        own = top == package != "configs"
        if top in LADDER and not own and not _within(module, LADDER[package]) and not _within(full, LADDER[package]):
            wrong.append(f"{path} imports {full}")
    assert not wrong


def test_no_package_imports_tests(trees):
    assert not [f"{path} imports {module}" for path, _, module, _ in _imported(trees) if _within(module, ("tests",))]


def test_configs_are_data(trees):
    allowed = ("ml_collections", "configs.common")
    assert not [f"{path} imports {full}" for path, _, _, full in _imported(trees, ("configs",)) if not _within(full, allowed)]


def test_input_pipeline_knows_no_jax(trees):
    found = _imported(trees, ("input_pipeline",))
    assert not [f"{path} imports {module}" for path, _, module, _ in found if _within(module, ("jax", "flax"))]


def test_nothing_prints_outside_launch_and_benchmarks(trees):
    prints = lambda node: isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    assert not _report(trees, prints, set(LADDER) - set(SPEAKS))


def _is_config(node):
    """`config`, `config.a`, `self.config.a`, ... as far as names tell."""
    while isinstance(node, ast.Attribute):
        if node.attr == "config":
            return True
        node = node.value
    return isinstance(node, ast.Name) and node.id in CONFIGS


def test_config_sections_are_read_by_attribute(trees):
    """`section.get("key", default)` turns a typo into a default. Stored JSON may be older than the code, so `evals` may ask it."""
    get = lambda n: isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr == "get" and n.args
    literal = lambda n: get(n) and isinstance(n.args[0], ast.Constant) and _is_config(n.func.value)
    assert not _report(trees, literal, set(LADDER) - {"evals"})


def test_nothing_unpickles(trees):
    pickle = ("pickle", "cPickle", "dill", "cloudpickle", "joblib")
    assert not [f"{path} imports {module}" for path, _, module, _ in _imported(trees) if _within(module, pickle)]
    allows = lambda n: isinstance(n, ast.keyword) and n.arg == "allow_pickle" and ast.unparse(n.value) != "False"
    assert not _report(trees, allows)
    loads = lambda n: isinstance(n, ast.Call) and ast.unparse(n.func) in ("np.load", "numpy.load")
    told = lambda n: any(k.arg == "allow_pickle" for k in n.keywords)
    assert not _report(trees, lambda n: loads(n) and not told(n)), "say allow_pickle=False"


def test_tests_are_no_packages():
    assert not list((ROOT / "tests").rglob("__init__.py")), "tests/losses/__init__.py would shadow losses"


IMPORT_ALL = """
import importlib, sys
from absl import flags
for name in sys.argv[1:]:
    importlib.import_module(name)
    for flag in flags.FLAGS.get_flags_for_module(name):  # each launcher is a program with flags of its own
        delattr(flags.FLAGS, flag.name)
import jax
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized(), "an import started a JAX backend"
"""


def test_importing_everything_does_nothing():
    modules = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in _files()]
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL, *modules], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == ""
