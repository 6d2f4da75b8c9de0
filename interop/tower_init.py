"""Towers of a run that start from somebody's weights, or those of an earlier run: `model.towers.<label>.init = {format, path, keep}`."""

import copy
import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from core.config import ConfigError, check_section, options_of, plain
from core.paths import by_path, check_patterns, matches
from interop import resize, tandem
from interop.imported import complete, shapes
from models import TOWERS

log = logging.getLogger(__name__)
SAME_PARAMETERS = {"naflex": ("vit",)}  # what a kind of tower may start from beside its own


def resolve(config: ConfigDict, reader) -> ConfigDict:
    """The config with every option stated for towers that start from a checkpoint: those of the config over those of the file.

    Args:
        config: of a run; not changed.
        reader: (path, format) to the module that reads it.

    Raises:
        FileNotFoundError: no such checkpoint.
        ConfigError: a file without such a tower, or of another architecture.
    """
    resolved = copy.deepcopy(config)
    with resolved.unlocked():
        for label, entry in _started(resolved):
            try:
                theirs = reader(entry.init.path, entry.init.format).model(entry.init.path)
            except FileNotFoundError as error:
                raise FileNotFoundError(f"config.model.towers.{label}.init.path: {error}") from error
            source = _options(theirs["towers"][_match(theirs, label, entry)], entry.name)
            entry.options = ConfigDict(complete(entry.name, source | plain(entry.options)))
    return resolved


def initial(config: ConfigDict, read, tokenizer=None) -> dict[str, np.ndarray]:
    """Parameters that the checkpoints bring, by their path in the run's model; what `keep` names is left out.

    Args:
        config: as `resolve` made it.
        read: (path, format) to an `Imported`.
        tokenizer: of the run.

    Raises:
        ConfigError: a pattern that matches nothing, parameters on one side alone, or shapes that no resizing mends; names them. Or texts
            that come as other ids than those of the run that the tower starts from.
    """
    wanted, taken = shapes(plain(config.model)), {}
    for label, entry in _started(config):
        found = read(entry.init.path, entry.init.format)
        source = _match(found.model, label, entry)
        _check_ids(found, tokenizer, entry)
        begins = f"towers_{source}/"
        theirs = {
            f"towers_{label}/{path.removeprefix(begins)}": array
            for path, array in by_path(found.params).items() if path.startswith(begins)
        }  # fmt: skip
        ours = {path: shape for path, shape in wanted.items() if path.startswith(f"towers_{label}/")}
        fitted = _fit(theirs, ours, entry, f"config.model.towers.{label}")
        taken |= fitted
        log.info("%s starts from %s: %d of %d parameters", label, entry.init.path, len(fitted), len(ours))
    return taken


def _started(config: ConfigDict):
    """(label, entry) of the towers with an `init`."""
    for label, entry in config.model.towers.items():
        if "init" in entry and entry.init is not None:
            check_section(entry.init, ("format", "path", "keep"), f"config.model.towers.{label}.init")
            yield label, entry


def _check_ids(found, tokenizer, entry: ConfigDict) -> None:
    """Refuses texts in other ids than a run of ours learned. Other formats state their ids in ways that a config may say differently."""
    if entry.init.format != "tandem" or tokenizer is None or "vocab_size" not in options_of(TOWERS[entry.name]):
        return
    if found.tokenizer is None or not found.tokenizer.same_ids(tokenizer):
        saved = f"dict(name='saved', options=dict(path='{tandem.place(entry.init.path)[0]}/tokenizer'))"
        raise ConfigError(f"{entry.init.path} learned other token ids than those of this run; set config.data.tokenizer to {saved}.")


def _options(tower: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Options of a checkpoint's tower, for one of the kind `name`: `naflex` takes those that it shares with `vit`."""
    options = dict(tower["options"])
    if tower["name"] == name:
        return options
    shared = {key: value for key, value in options.items() if key in options_of(TOWERS[name])}
    return shared | {"grid": options["image_size"] // options["patch_size"]}


def _match(model: Mapping[str, Any], label: str, entry: ConfigDict) -> str:
    """The label, in a checkpoint, of the tower meant: the only one of that kind, or of that kind and name."""
    kinds = {name: tower["name"] for name, tower in model["towers"].items()}
    found = [name for name, kind in kinds.items() if kind in (entry.name, *SAME_PARAMETERS.get(entry.name, ()))]
    found = [label] if label in found else found
    if len(found) != 1:
        raise ConfigError(
            f"config.model.towers.{label}.name is {entry.name!r}, but {entry.init.path} holds {kinds}; "
            f"set it to {' or '.join(repr(kind) for kind in sorted(set(kinds.values())))}."
        )
    return found[0]


def _fit(theirs: Mapping[str, np.ndarray], ours: Mapping[str, tuple], entry: ConfigDict, key: str) -> dict[str, np.ndarray]:
    keep = tuple(entry.init.keep)
    check_patterns(keep, sorted({*theirs, *ours}), f"{key}.init.keep")
    theirs = {path: array for path, array in theirs.items() if not matches(path, keep)}
    ours = {path: shape for path, shape in ours.items() if not matches(path, keep)}
    for names, what in ((set(ours) - set(theirs), "lacks"), (set(theirs) - set(ours), "holds, but the tower has no place for,")):
        if names:
            raise ConfigError(
                f"{entry.init.path} {what} {_some(names)}; set {key}.options to those of the checkpoint, "
                f"or add a pattern such as {_last(min(names))!r} to {key}.init.keep."
            )
    made = {path: _resized(path, array, ours[path], entry) for path, array in theirs.items()}
    wrong = [f"{path} {list(array.shape)} instead of {list(ours[path])}" for path, array in made.items() if array.shape != ours[path]]
    if wrong:
        raise ConfigError(
            f"{entry.init.path} has {_some(wrong)}; set {key}.options to those of the checkpoint, or add such a path to {key}.init.keep."
        )
    return made


def _resized(path: str, array: np.ndarray, shape: tuple[int, ...], entry: ConfigDict) -> np.ndarray:
    if not path.endswith("/position_embedding") or array.shape == shape or array.shape[-1] != shape[-1]:
        return array
    if array.ndim == 3:
        first = int(entry.options.class_position) if "class_position" in entry.options else 0
        sides = [math.isqrt(n - first) for n in (array.shape[1], shape[1])]
        log.info("%s: position table of %d x %d patches resized to %d x %d", path, sides[0], sides[0], sides[1], sides[1])
        return resize.grid(array, sides[1], first)
    first = entry.options.position_offset if "position_offset" in entry.options else 0
    log.info("%s: position table of %d tokens changed to %d", path, len(array) - first, shape[0] - first)
    return resize.line(array, shape[0] - first, first)


def _last(path: str) -> str:
    return path.split("/", 1)[1]


def _some(names) -> str:
    names = sorted(names)
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
