"""Other libraries that a benchmark runs beside Tandem; imported when asked for, since nothing else needs them."""

import importlib.util
import sys
import types
from collections.abc import Callable

from sklearn.base import clone

PARITY = "install requirements-parity.txt"


def torch(threads: int | None = None):
    """PyTorch, on as many threads as this process has cores.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    module = _find("torch")
    module.set_num_threads(threads or module.get_num_threads())
    return module


def open_clip():
    """open_clip; where torchvision, which it needs for image files alone, is absent, empty classes stand in.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    torch()
    if importlib.util.find_spec("torchvision") is None:
        for name in ("", ".transforms", ".transforms.functional", ".ops", ".ops.misc"):
            module = _Empty(f"torchvision{name}")
            module.__path__ = []
            module.__spec__ = importlib.util.spec_from_loader(module.__name__, None)
            sys.modules[module.__name__] = module
    return _find("open_clip")


def clip_benchmark_recalls(images, texts, ks) -> Callable[[], dict]:
    """CLIP_benchmark's retrieval metrics of rows [N d] and their captions [N m d], from a model that hands them out in batches of 64.

    Raises:
        ModuleNotFoundError: it is not installed; `benchmarks/evaluate.py` says how.
    """
    library, module = torch(), _find("clip_benchmark.metrics.zeroshot_retrieval")
    images, texts = library.tensor(images), library.tensor(texts)

    class Model:
        encode_image = staticmethod(lambda rows: rows)
        encode_text = staticmethod(lambda rows: rows)

    batches = [(images[i : i + 64], list(texts[i : i + 64])) for i in range(0, len(images), 64)]
    return lambda: module.evaluate(Model, batches, library.stack, "cpu", amp=False, recall_k_list=list(ks))


def mteb_classifier(rows, labels, test_rows) -> Callable[[], object]:
    """MTEB's linear probe: fits its classifier on rows [N d] with their labels, and gives the classes of the test rows.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    task = _find("mteb.abstasks.classification").AbsTaskClassification
    evaluator = task.evaluator({"label": labels}, None, label_column_name="label", evaluator_model=clone(task.evaluator_model))
    return lambda: evaluator(rows, test_rows)


def _find(name: str):
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{name} is not here to compare with; {PARITY}.", name=error.name) from error


class _Empty(types.ModuleType):
    """A module with a class for every name; whatever is read of such a class is its name."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Named(name, (), {})


class _Named(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return name
