"""Other people's checkpoints, in and out, and our own runs, by the name of the format."""

import os
import pathlib

import numpy as np
from ml_collections import ConfigDict

from core.config import ConfigError
from core.config import choose as _choose
from interop import big_vision, hf, open_clip, sentence_transformers, tandem, tower_init
from interop.imported import Imported

FORMATS = {
    "tandem": tandem,  # before hf: a workdir holds a config.json too
    "sentence_transformers": sentence_transformers,  # before hf: its folders hold a config.json too
    "hf": hf,
    "open_clip": open_clip,
    "big_vision": big_vision,
}


def read(path: str | os.PathLike, format: str | None = None) -> Imported:
    """A checkpoint of another library, in our terms.

    Args:
        path: a folder or a file.
        format: a name in `FORMATS`; by default what the path looks like.

    Raises:
        FileNotFoundError: nothing there.
        ConfigError: a format nobody knows, another architecture, missing or extra tensors, shapes that do not fit.
    """
    return _reader(path, format).read(path)


def resolve(config: ConfigDict) -> ConfigDict:
    """The config of a run with every option stated for towers whose `init` names a checkpoint; see `tower_init.resolve`."""
    return tower_init.resolve(config, _reader)


def initial(config: ConfigDict, tokenizer=None) -> dict[str, np.ndarray]:
    """Parameters by path that the checkpoints of a resolved config bring; see `tower_init.initial`."""
    return tower_init.initial(config, read, tokenizer)


def _reader(path: str | os.PathLike, format: str | None):
    if format is not None:
        return _choose(FORMATS, format, "format")
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give the folder or file of a model.")
    for reader in FORMATS.values():
        if reader.claims(path):
            return reader
    raise ConfigError(f"{path} looks like none of the formats {', '.join(FORMATS)}; name one of them as the format.")
