"""The order of rows depends on the seed and the row alone: threads, workers, processes and restarts change nothing."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from core.config import ConfigError
from input_pipeline import SOURCES, batching, transforms
from input_pipeline.bad_records import BadRecord
from tests.input_pipeline.toys import Toy, config, toy_config, write_pairs

# The smallest split of each source, to keep the contract quick.
OPTIONS = {"digits": dict(split="test", size=8), "glyphs": dict(split="unseen", size=12)}
OPTIONS |= {"docstrings": dict(split="test"), "library": dict(split="test", kinds=("docstring",))}
OPTIONS |= {
    name: dict(split="unseen", size=12, heldout=60, only=("STIXGeneralBol",)) for name in ("glyph_mosaics", "glyph_scenes", "glyph_swaps")
}
TOKENIZE = dict(name="tokenize", options=dict(length=8))
TEXTS = dict(query=TOKENIZE, passage=TOKENIZE)


@pytest.fixture(scope="module", params=sorted(name for name, make in SOURCES.items() if not hasattr(make, "captions")))
def case(request, tmp_path_factory):
    """Config, sources and tokenizer of one source; those of encoded images have `test_encoded.py`."""
    options = OPTIONS.get(request.param, {})
    if request.param == "pairs":
        options = dict(files=(write_pairs(tmp_path_factory.mktemp("pairs")),), negatives=("wrong",), k=1)
    texts = {"docstrings": TEXTS, "pairs": TEXTS | dict(negatives=TOKENIZE)}
    transforms = dict(transforms=texts[request.param]) if request.param in texts else {}
    data = config(sources=dict(main=dict(name=request.param, weight=1.0, options=options)), **transforms)
    if request.param in ("glyph_scenes", "glyph_swaps"):
        data.transforms.negatives = TOKENIZE
    if request.param == "glyph_mosaics":
        data.transforms.tiles = TOKENIZE
    sources = batching.make_sources(data)
    return data, sources, batching.make_tokenizer(data, sources)


def read(case, count, *, seed=0, **options):
    with batching.batches(*case, seed=seed, **options) as iterator:
        return [next(iterator) for _ in range(count)]


def changed(case, **changes):
    return (type(case[0])(case[0].to_dict() | changes), *case[1:])


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def assert_all_same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert_same(x, y)


def toy_batches(sources, weights=None, seed=0, on_bad=None, start=0, **changes):
    return batching.batches(toy_config(weights, **changes), sources, None, seed=seed, on_bad=on_bad, start=start)


def test_a_batch_has_the_agreed_columns(case):
    (batch,) = read(case, 1)
    record, views = next(iter(case[1].values()))[0], set()
    for name, value in record.items():
        if isinstance(value, (str, list)):
            shape = (8, len(value), 8) if isinstance(value, list) else (8, 8)
            assert batch[name].shape == batch[f"{name}_mask"].shape == shape
            assert batch[name].dtype == np.int32 and batch[f"{name}_mask"].dtype == np.bool_
            views |= {name, f"{name}_mask"}
        elif isinstance(value, float):
            assert batch[name].shape == (8,) and batch[name].dtype == np.float32
            views.add(name)
        elif isinstance(value, np.ndarray):
            assert batch[name].shape == (8, *value.shape) and batch[name].dtype == value.dtype
            views.add(name)
    for name in set(batch) - views:
        assert batch[name].shape == (8,) and batch[name].dtype == np.int32, name
    assert {"id", "record", "source", "bad"} <= set(batch)


def test_a_batch_holds_the_records_it_names(case):
    data, sources, tokenizer = case
    long = {name: entry.to_dict() | dict(options=dict(length=16)) for name, entry in data.transforms.items() if entry.name == "tokenize"}
    for batch in read(changed(case, transforms=long), 3):
        for row, record in enumerate(batch["record"]):
            raw = sources["main"][int(record)]
            assert batch["id"][row] == raw["id"]
            if "image" in raw:
                np.testing.assert_array_equal(batch["image"][row], raw["image"])
            for name in set(long) - {"negatives", "tiles"}:  # which are drawn
                np.testing.assert_array_equal(batch[name][row], tokenizer([raw[name]], 16)[0][0])


def test_a_run_that_starts_anywhere_goes_on_as_the_whole_run(case):
    whole = read(case, 6)
    for start in range(6):
        assert_all_same(whole[start:], read(case, 6 - start, start=start))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_processes_share_a_global_batch_without_overlap(case, count):
    whole = read(case, 3)
    parts = [read(case, 3, process_index=p, process_count=count) for p in range(count)]
    for step, batch in enumerate(whole):
        assert_same(batch, {name: np.concatenate([part[step][name] for part in parts]) for name in batch})


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing(case, threads):
    assert_all_same(read(case, 8), read(changed(case, threads=threads), 8))


def test_worker_processes_change_nothing():  # one source is enough: workers take seconds to start
    data = config()
    sources = batching.make_sources(data)
    case = data, sources, batching.make_tokenizer(data, sources)
    assert_all_same(read(case, 7, start=3), read(changed(case, workers=2, threads=1), 7, start=3))


def test_seeds_differ_in_order_and_changes(case):
    a, b = read(case, 1)[0], read(case, 1, seed=1)[0]
    assert (a["record"] != b["record"]).any()
    still = changed(case, shuffle=False)
    a, b = read(still, 1)[0], read(still, 1, seed=1)[0]
    np.testing.assert_array_equal(a["record"], np.arange(8))
    if "image" in a:  # which are augmented
        assert (a["image"] != b["image"]).any()


def test_a_record_changes_differently_in_each_epoch_but_not_with_its_place():
    data = config(shuffle=False, global_batch=4)
    source = batching.make_source(data.sources.main, "config.data.sources.main")
    tokenizer = batching.make_tokenizer(data, {"main": source})
    short = {"main": _First(source, 4)}
    first, second = read((data, short, tokenizer), 2)
    assert (first["image"] != second["image"]).any(axis=(1, 2, 3)).all()
    shuffled = read((config(global_batch=4), short, tokenizer), 2)
    for plain, other in zip((first, second), shuffled, strict=True):
        np.testing.assert_array_equal(plain["image"][other["record"]], other["image"])


def test_views_of_a_record_change_independently():
    class Twice(Toy):
        def __getitem__(self, i):
            image = np.full((8, 8, 1), 128, np.uint8)
            return {"left": image, "right": image, "id": i}

    entry = dict(name="augment", options=dict(noise=0.1))
    with toy_batches({"main": Twice(5)}, transforms=dict(left=entry, right=entry)) as iterator:
        batch = next(iterator)
    assert (batch["left"] != batch["right"]).any(axis=(1, 2, 3)).all()


class _First:
    def __init__(self, source, size):
        self.source, self.size = source, size

    def __len__(self):
        return self.size

    def __getitem__(self, i):
        return self.source[i]


def test_a_copy_begins_as_its_view_and_changes_by_itself():
    data = config(copies=dict(image_again="image"))
    data.transforms.image_again = data.transforms.image
    sources = batching.make_sources(data)
    tokenizer = batching.make_tokenizer(data, sources)
    (batch,) = read((data, sources, tokenizer), 1)
    assert batch["image"].shape == batch["image_again"].shape and (batch["image"] != batch["image_again"]).any()
    for view in ("image", "image_again"):
        data.transforms[view].options = dict(shift=0.0, scale=0.0, rotate=0.0, noise=0.0)
    (batch,) = read((data, sources, tokenizer), 1)
    np.testing.assert_array_equal(batch["image"], batch["image_again"])


@pytest.mark.parametrize(
    "copies, wrong", [(dict(again="picture"), "there is no 'picture'"), (dict(text="image"), "there is 'text' already")]
)
def test_a_copy_of_nothing_or_over_something_is_named(copies, wrong):
    with pytest.raises(ConfigError, match=rf"config.data.copies.{next(iter(copies))}.*{wrong}"):
        data = config(copies=copies)
        sources = batching.make_sources(data)
        read((data, sources, batching.make_tokenizer(data, sources)), 1)


def test_position_counts_the_batches_delivered():
    with toy_batches({"main": Toy(5)}, start=4) as iterator:
        assert iterator.position == 4
        a = [next(iterator) for _ in range(3)]
        assert iterator.position == 7 and iterator.rows == 24
    with toy_batches({"main": Toy(5)}, start=7 - 1) as again:
        assert_same(a[-1], next(again))


def test_nothing_comes_after_close():
    iterator = toy_batches({"main": Toy(5)}, threads=2)
    next(iterator)
    iterator.close()
    iterator.close()
    assert list(iterator) == []


def test_a_bad_record_is_replaced_by_its_successor_and_reported():
    sources = {"main": Toy(10, bad=[3, 4, 9])}
    seen = []
    with toy_batches(sources, shuffle=False, global_batch=10, max_bad_fraction=0.5, on_bad=seen.append) as iterator:
        batch = next(iterator)
        assert iterator.bad_records == 4
    np.testing.assert_array_equal(batch["record"], [0, 1, 2, 5, 5, 5, 6, 7, 8, 0])
    np.testing.assert_array_equal(batch["id"], batch["record"])
    np.testing.assert_array_equal(batch["bad"], [0, 0, 0, 2, 1, 0, 0, 0, 0, 1])
    assert [entry["record"] for entry in seen] == [3, 4, 4, 9]
    assert seen[0] == {"batch": 0, "source": "main", "record": 3, "kind": "unreadable", "reason": "record 3 is torn"}


def test_damage_beyond_one_record_is_passed_over_at_once():
    class Gone(Toy):
        def __getitem__(self, i):
            if 3 <= i < 900:
                raise BadRecord("the shard is gone", "gone", until=900)
            return super().__getitem__(i)

    with toy_batches({"main": Gone(902)}, shuffle=False, global_batch=7, max_bad_fraction=0.5) as iterator:
        np.testing.assert_array_equal(next(iterator)["record"], [0, 1, 2, 900, 900, 900, 900])
        assert iterator.bad_kinds == {"gone": 4}


@pytest.mark.parametrize("says_which", [True, False])
def test_a_value_that_a_transform_refuses_is_replaced(monkeypatch, says_which):
    def refuse(values, rngs, tokenizer):
        for row, value in enumerate(values):
            if value[0] in (4, 5, 8):
                raise BadRecord("cannot be decoded", "image", row=row if says_which else None)
        return {"": np.stack(values)}

    monkeypatch.setitem(transforms.TRANSFORMS, "refuse", refuse)
    seen, data = [], dict(transforms=dict(x=dict(name="refuse", options={})), shuffle=False, global_batch=10, max_bad_fraction=0.5)
    with toy_batches({"main": Toy(10, bad=[6])}, on_bad=seen.append, **data) as iterator:
        batch = next(iterator)
        assert iterator.metrics() == {"data/bad_records": 7, "data/bad/image": 4, "data/bad/unreadable": 3, "data/epochs/main": 1}
    np.testing.assert_array_equal(batch["record"], [0, 1, 2, 3, 7, 7, 7, 7, 9, 9])
    np.testing.assert_array_equal(batch["x"][:, 0], batch["record"])
    np.testing.assert_array_equal(batch["bad"], [0, 0, 0, 0, 3, 2, 1, 0, 1, 0])
    assert [entry["record"] for entry in seen] == [4, 5, 6, 5, 6, 6, 8]
    parts = [read((toy_config(**data), {"main": Toy(10, bad=[6])}, None), 1, process_index=p, process_count=2)[0] for p in range(2)]
    assert_same(batch, {name: np.concatenate([part[name] for part in parts]) for name in batch})


class Alike(Toy):
    """Three records in a row share an id."""

    def __getitem__(self, i):
        return super().__getitem__(i) | {"id": i // 3}


class Numbered(Alike):
    """The same, with ids that need no reading."""

    def id(self, i):
        return i // 3


@pytest.mark.parametrize("kind", [Alike, Numbered])
def test_ids_of_a_batch_are_distinct_for_every_split(kind):
    case = toy_config(distinct=True, global_batch=8), {"main": kind(60)}, None
    whole = read(case, 12)
    assert all(len(set(batch["id"].tolist())) == 8 for batch in whole)
    assert any(len(set(batch["id"].tolist())) < 8 for batch in read(changed(case, distinct=False), 12))
    for count in (2, 4):
        parts = [read(case, 12, process_index=p, process_count=count) for p in range(count)]
        assert_all_same(whole, [{name: np.concatenate([part[step][name] for part in parts]) for name in whole[0]} for step in range(12)])
    assert_all_same(whole[5:], read(case, 7, start=5))


def test_distinct_ids_of_a_source_in_order_with_bad_records_and_too_few():
    ids = lambda source, **options: read((toy_config(distinct=True, shuffle=False, **options), {"main": source}, None), 1)[0]["record"]
    assert ids(Numbered(60), global_batch=4).tolist() == [0, 3, 6, 9]
    assert ids(Numbered(60, bad=[3]), global_batch=4, max_bad_fraction=1.0).tolist() == [0, 4, 6, 9]
    assert ids(Numbered(6), global_batch=4).tolist() == [0, 3, 2, 3]


def test_the_epochs_of_each_source_follow_from_the_position():
    data = toy_config({"a": 3.0, "b": 1.0}, global_batch=40)
    with batching.batches(data, {"a": Toy(30), "b": Toy(20)}, None, seed=0, start=3) as iterator:
        next(iterator)
        assert iterator.metrics() == {"data/bad_records": 0, "data/epochs/a": 4 * 30 / 30, "data/epochs/b": 4 * 10 / 20}


def test_bad_records_are_the_same_however_the_batch_is_split():
    sources = {"main": Toy(10, bad=[3, 4, 9])}
    data = toy_config(max_bad_fraction=0.5)
    whole = read((data, sources, None), 3)
    parts = [read((data, sources, None), 3, process_index=p, process_count=2) for p in range(2)]
    for step, batch in enumerate(whole):
        assert_same(batch, {name: np.concatenate([part[step][name] for part in parts]) for name in batch})


def test_too_many_bad_records_stop_the_run():
    with toy_batches({"main": Toy(10, bad=[3])}, shuffle=False) as iterator:
        with pytest.raises(ConfigError, match="config.data.max_bad_fraction above 0.0"):
            next(iterator)
    # A share of 1% is judged against 1,000 rows at least: 10 bad records may pass, the eleventh may not.
    with toy_batches({"main": Toy(10, bad=[3])}, shuffle=False, global_batch=10, max_bad_fraction=0.01) as iterator:
        for _ in range(10):
            next(iterator)
        with pytest.raises(ConfigError, match=r"11 of 110 records could not be read \(unreadable 11\)"):
            next(iterator)


def test_a_source_without_a_readable_record_is_an_error():
    with toy_batches({"main": Toy(5, bad=range(5))}, max_bad_fraction=1.0) as iterator:
        with pytest.raises(ConfigError, match="100 records in a row of config.data.sources.main cannot be read"):
            next(iterator)


def test_sources_are_mixed_by_weight_and_keep_their_numbers_apart():
    weights = {"a": 3.0, "b": 1.0}
    with toy_batches({"a": Toy(30), "b": Toy(7)}, weights, global_batch=40) as iterator:
        rows = [next(iterator) for _ in range(3)]
    source = np.concatenate([batch["source"] for batch in rows])
    ids = np.concatenate([batch["id"] for batch in rows])
    records = np.concatenate([batch["record"] for batch in rows])
    assert (source == 0).sum() == 90 and (source == 1).sum() == 30
    np.testing.assert_array_equal(ids, records + np.where(source == 1, 30, 0))
    for batch in rows:  # 40 rows are one epoch of source a
        assert sorted(batch["record"][batch["source"] == 0]) == list(range(30))
    assert batching.records_per_epoch(toy_config(weights), {"a": Toy(30), "b": Toy(7)}) == 28
    assert batching.records_per_epoch(toy_config(), {"main": Toy(30)}) == 30


@pytest.mark.parametrize("run, sources_in_a_batch", [(8, 1), (4, 2), (2, 2)])
def test_homogeneous_runs_are_the_same_for_every_split_and_start(run, sources_in_a_batch):
    sources = {"a": Toy(30), "b": Toy(17)}
    case = toy_config({"a": 1.0, "b": 1.0}, homogeneous=run), sources, None
    whole = read(case, 6)
    for batch in whole:
        assert all(len(set(batch["source"][start : start + run].tolist())) == 1 for start in range(0, 8, run))
        assert len(set(batch["source"].tolist())) == sources_in_a_batch
    assert_all_same(whole[4:], read(case, 2, start=4))
    parts = [read(case, 6, process_index=p, process_count=2) for p in range(2)]
    assert_all_same(whole, [{name: np.concatenate([part[step][name] for part in parts]) for name in whole[0]} for step in range(6)])


@pytest.mark.parametrize("power, share", [(0.0, 1 / 2), (1.0, 4 / 5), (0.5, 2 / 3)])
def test_sizes_temper_the_weights(power, share):
    data = toy_config({"a": 1.0, "b": 1.0}, size_power=power, global_batch=60)
    with batching.batches(data, {"a": Toy(80), "b": Toy(20)}, None, seed=0) as rows:
        source = np.concatenate([next(rows)["source"] for _ in range(10)])
    assert np.mean(source == 0) == pytest.approx(share, abs=0.01)


def test_numbers_and_arrays_become_columns():
    with toy_batches({"main": Toy(5)}) as iterator:
        batch = next(iterator)
    assert batch["score"].dtype == np.float32 and batch["x"].shape == (8, 2)
    np.testing.assert_array_equal(batch["score"], batch["record"] / np.float32(2))


def source(**entry):
    return dict(sources=dict(main=dict(name="digits", weight=1.0, options={}) | entry))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (source(name="glyps"), r"config\.data\.sources\.main\.name is 'glyps'.*glyphs"),
        (source(name="glyphs", options=dict(sice=3)), r"config\.data\.sources\.main\.options\.sice.*size"),
        (source(weight=0.0), r"config\.data\.sources\.main\.weight is 0"),
        (source(options=dict(split="dev")), r"config\.data\.sources\.main: .*train, test"),
        (dict(sources={}), r"config\.data\.sources is empty"),
        (dict(thraeds=2), r"config\.data\.thraeds.*threads"),
        (dict(tokenizer=dict(name="bpe", options=dict(vocab_size=10))), r"config\.data\.tokenizer: .*512 or more"),
        (dict(tokenizer=dict(name="wordpeice", options={})), r"config\.data\.tokenizer\.name is 'wordpeice'.*'wordpiece'"),
        (dict(transforms=dict(image=dict(name="augmnt", options={}))), r"config\.data\.transforms\.image\.name is 'augmnt'.*augment"),
        (dict(transforms=dict(image=dict(name="augment", options=dict(turn=1.0)))), r"config\.data\.transforms\.image\.options\.turn"),
        (dict(transforms={}), r"set config\.data\.transforms\.text to dict\(name='tokenize'"),
        (dict(homogeneous=3), r"config\.data\.homogeneous is 3.*set it to 1 \(mix row by row\), 8"),
        (dict(homogeneous=0), r"config\.data\.homogeneous is 0"),
        (dict(global_batch=9), r"config\.data\.global_batch is 9, .* set it to 8 or 10"),
    ],
)
def test_a_mistake_in_the_config_is_named(changes, message):
    data = config(**changes)
    with pytest.raises(ConfigError, match=message):
        sources = batching.make_sources(data)
        read((data, sources, batching.make_tokenizer(data, sources)), 1, process_count=2 if data.global_batch == 9 else 1)


def test_mixed_sources_need_the_same_columns():
    digits = batching.make_source(config().sources.main, "config.data.sources.main")
    with toy_batches({"a": Toy(5), "b": digits}, {"a": 1.0, "b": 1.0}) as iterator:
        with pytest.raises(ConfigError, match="mixed sources need the same columns"):
            next(iterator)


ORPHAN = """
import sys
from tests.input_pipeline.toys import config
from input_pipeline import batching

if __name__ == "__main__":
    data = config(workers=1, threads=0)
    sources = batching.make_sources(data)
    iterator = batching.batches(data, sources, batching.make_tokenizer(data, sources), seed=0)
    next(iterator)
    import multiprocessing
    sys.stdout.write(f"{multiprocessing.active_children()[0].pid}\\n")
    sys.stdout.flush()
    next(iterator), sys.stdin.read()
"""


def test_a_worker_ignores_ctrl_c_and_leaves_with_its_parent(tmp_path):
    (tmp_path / "orphan.py").write_text(ORPHAN)
    env = dict(os.environ, PYTHONPATH=os.getcwd())
    command, pipe = [sys.executable, str(tmp_path / "orphan.py")], subprocess.PIPE
    with subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, text=True) as process:
        worker = int(process.stdout.readline())
        os.kill(worker, signal.SIGINT)
        time.sleep(0.5)
        assert _alive(worker)
        process.kill()
    deadline = time.monotonic() + 30
    while _alive(worker) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not _alive(worker)


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
