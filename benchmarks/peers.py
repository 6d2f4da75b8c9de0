"""Other libraries that a benchmark runs beside Tandem; imported when asked for, since nothing else needs them."""

import importlib.util
import sys
import types

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
