"""Any source as shards of ArrayRecord that read fast in any order: filtered, without duplicates, with a manifest and a look at it.

    python -m launch.prepare --source=webdataset --options='{"shards":["cc3m/{00000..00331}.tar"]}' --output=prepared/cc3m --workers=8

A run then names it: `dict(name="array_record", weight=1.0, options=dict(folder="prepared/cc3m"))`. The folder has `manifest.json`,
`statistics.json`, `contact_sheet.png`, `dropped.jsonl` (every record that was left out, and why) and the shards. The same command goes on
after a kill; other settings are refused. Indexes of tar shards lie in `~/.cache/tandem/index`, or where TANDEM_INDEX points. Codes: 0 done,
3 mistake in the flags.
"""

import concurrent.futures
import json
import multiprocessing
import pathlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from absl import flags

from launch import process

_SOURCE = flags.DEFINE_string("source", None, "name of a source, as in config.data.sources")
_OPTIONS = flags.DEFINE_string("options", "{}", "its options, a JSON object")
_OUTPUT = flags.DEFINE_string("output", None, "folder to write")
_SHARD = flags.DEFINE_integer("shard_records", 10_000, "records of the source for each shard", 1)
_WORKERS = flags.DEFINE_integer("workers", 0, "processes; 0 works in this one", 0)
_MIN_CHARACTERS = flags.DEFINE_integer("min_characters", 1, "drop shorter texts, and records without any other", 1)
_MAX_CHARACTERS = flags.DEFINE_integer("max_characters", 1_000_000, "drop longer texts, and records without any other", 1)
_LANGUAGES = flags.DEFINE_list("languages", [], "drop texts in others, and records without any: text=en,text=de; needs py3langid")
_MIN_SIDE = flags.DEFINE_integer("min_side", 1, "drop images with fewer pixels on their shorter side", 1)
_MAX_ASPECT = flags.DEFINE_float("max_aspect", 0.0, "drop images that are longer by more than so many times; 0 keeps all", 0.0)
_LEAST = flags.DEFINE_list("least", [], "drop records below, for columns that options.numbers names: similarity=0.28,aesthetic=5")
_DECODE = flags.DEFINE_bool("decode", False, "decode every image, and drop those that cannot be; else their headers are read")
_DUPLICATES = flags.DEFINE_bool("duplicates", False, "keep records whose image, or whose texts without one, came before")
_NEAR = flags.DEFINE_float("near_duplicates", 0.0, "drop texts as similar to an earlier one (Jaccard, by MinHash); 0 keeps them", 0, 1)
_SHEET = flags.DEFINE_integer("sheet_records", 48, "records on the contact sheet", 0)


def main(_) -> None:
    process.start()
    with process.exit_codes():
        prepare()


def prepare() -> None:
    """Everything after the flags."""
    import tqdm

    from core.config import ConfigError
    from core.storage import on_this_machine
    from core.workdir import locked, read_json, write_json
    from input_pipeline import batching
    from input_pipeline.prepare import Rules

    entry = _entry(_SOURCE.value, _OPTIONS.value)
    rules = Rules(
        _MIN_CHARACTERS.value, _MAX_CHARACTERS.value, _languages(_LANGUAGES.value), _MIN_SIDE.value, _MAX_ASPECT.value,
        _pairs(_LEAST.value), _DECODE.value, _DUPLICATES.value, _NEAR.value,
    )  # fmt: skip
    settings = json.loads(json.dumps({"source": entry.to_dict(), "rules": rules._asdict(), "shard_records": _SHARD.value}))
    output = on_this_machine(_OUTPUT.value, "--output")
    with locked(output, "written", "--output"):
        if (output / "settings.json").exists() and (found := read_json(output / "settings.json")) != settings:
            raise ConfigError(f"{output} was begun with other settings: {found}; choose another --output.")
        if (output / "manifest.json").exists():
            process.log.info("%s is done: %d records", output, read_json(output / "manifest.json")["records"])
            return
        write_json(output / "settings.json", settings)
        source = batching.make_source(entry, "--source")
        bounds = list(range(0, len(source), _SHARD.value)) + [len(source)]
        parts = [range(a, b) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
        with tqdm.tqdm(total=2 * len(source), unit="record", unit_scale=True, mininterval=0.5) as bar, _workers(_WORKERS.value) as run:
            manifest = make(source, parts, output, rules, run, bar.update, _SHEET.value)
        write_json(output / "manifest.json", settings | manifest)
    process.log.info("%d of %d records in %s; look at %s", manifest["records"], len(source), output, output / "contact_sheet.png")


def make(source, parts: list[range], output: pathlib.Path, rules, run: Callable, done: Callable[[int], Any], sheet: int) -> dict[str, Any]:
    """All passes over all parts; what is there already is kept. Returns what the manifest says.

    Args:
        source: any source.
        parts: its records, those of one shard each.
        output: the folder.
        rules: a `Rules`.
        run: as `map`, in any order of the work.
        done: called with the number of records that are done.
        sheet: records on the contact sheet.
    """
    import numpy as np

    from core.config import ConfigError
    from core.workdir import write_json
    from input_pipeline import contact_sheet
    from input_pipeline import prepare as work

    (output / "parts").mkdir(exist_ok=True)
    looked = [output / "parts" / f"{k:05d}.npz" for k in range(len(parts))]
    for rows in run(partial(_scan, source, rules), parts, looked):
        done(rows)
    facts = _joined([_load(path, ("detail",)) for path in looked])
    reason = work.decide(facts, rules)
    if not (reason == "").any():
        raise ConfigError(f"no record of {len(reason)} is left: {work.statistics(facts, reason)['dropped']}; loosen the rules.")
    kept = [np.flatnonzero(reason[part.start : part.stop] == "") + part.start for part in parts]
    names = [str(output / f"data-{k:05d}-of-{len(parts):05d}.array_record") for k in range(len(parts))]
    facts_of = [output / "parts" / f"{k:05d}.json" for k in range(len(parts))]
    for _, part in zip(run(partial(_write, source, rules), kept, names, facts_of), parts, strict=True):
        done(len(part))
    shards = [json.loads(path.read_text()) for path in facts_of]
    _note_dropped(output / "dropped.jsonl", looked, parts, reason)
    schema = {name: kind for shard in shards for name, kind in shard.pop("schema").items()}
    numbers = {name: facts[name][reason == ""] for name, kind in schema.items() if kind in ("int", "float")}
    numbers = {name: work.dense(column) if schema[name] == "int" else column.astype(np.float32) for name, column in numbers.items()}
    with open(output / "numbers.npz", "wb") as file:
        np.savez(file, **numbers)
    write_json(output / "statistics.json", work.statistics(facts, reason))
    rows = np.flatnonzero(reason == "")
    shown = rows[np.linspace(0, len(rows) - 1, min(sheet, len(rows))).astype(int)]
    trim = rules.trimmer()
    picture = contact_sheet.draw([trim(work.whole(source, int(i))) for i in shown])
    (output / "contact_sheet.png").write_bytes(contact_sheet.as_png(picture))
    counts = {name: int(column.max()) + 1 for name, column in numbers.items() if schema[name] == "int"}
    return {"format": 1, "records": len(rows), "schema": schema, "counts": counts, "shards": shards}


def _scan(source, rules, rows: range, path: pathlib.Path) -> int:
    import os

    import numpy as np

    from input_pipeline import prepare as work

    if not path.exists():
        temporary = path.with_suffix(".unfinished")
        with open(temporary, "wb") as file:
            np.savez(file, **work.scan(source, rows, rules))
        os.replace(temporary, path)
    return len(rows)


def _write(source, rules, rows, name: str, facts: pathlib.Path) -> int:
    from core.workdir import write_json
    from input_pipeline import prepare as work

    if not facts.exists():  # written after the shard
        write_json(facts, work.write(source, rows.tolist(), name, rules))
    return len(rows)


def _load(path: pathlib.Path, without: tuple[str, ...] = ()) -> dict[str, Any]:
    import numpy as np

    with np.load(path, allow_pickle=False) as found:
        return {name: found[name] for name in found.files if name not in without}


def _joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The facts of all parts; a part in which no record has a fact has zeros for it."""
    import numpy as np

    like = {name: array for part in parts for name, array in part.items()}
    blank = lambda part, name: np.zeros((len(part["reason"]), *like[name].shape[1:]), like[name].dtype)
    return {name: np.concatenate([part[name] if name in part else blank(part, name) for part in parts]) for name in like}


def _note_dropped(path: pathlib.Path, looked: Iterable[pathlib.Path], parts: Iterable[range], reason) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for place, part in zip(looked, parts, strict=True):
            detail = _load(place)["detail"]
            for i in part:
                if reason[i]:
                    file.write(json.dumps({"record": i, "kind": str(reason[i]), "reason": str(detail[i - part.start])}) + "\n")


class _workers:
    """Context: a `map` over processes, or over none."""

    def __init__(self, count: int):
        # Not forked: threads of numpy or of a remote file system may hold locks.
        context = multiprocessing.get_context("spawn")
        self._pool = concurrent.futures.ProcessPoolExecutor(count, context) if count else None

    def __enter__(self) -> Callable[..., Iterator]:
        return map if self._pool is None else self._pool.map

    def __exit__(self, *exception) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _entry(name: str, options: str):
    from ml_collections import ConfigDict

    from core.config import ConfigError

    try:
        return ConfigDict(dict(name=name, options=json.loads(options)))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"--options={options} is not a JSON object: {error}") from error


def _pairs(items: list[str]) -> dict[str, float]:
    from core.config import ConfigError

    try:
        return {name: float(value) for name, value in (item.split("=") for item in items)}
    except ValueError:
        raise ConfigError(f"--least={','.join(items)} must look like similarity=0.28,aesthetic=5.") from None


def _languages(items: list[str]) -> dict[str, list[str]]:
    from core.config import ConfigError

    found: dict[str, list[str]] = {}
    for column, equals, code in (item.partition("=") for item in items):
        if not (column and equals and code):
            raise ConfigError(f"--languages={','.join(items)} must look like text=en,text=de.")
        found.setdefault(column, []).append(code)
    return found


if __name__ == "__main__":
    flags.mark_flags_as_required(["source", "output"])
    process.run(main)
