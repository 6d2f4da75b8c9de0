"""Records with texts that are nearly alike share an id, and so never meet in a batch that wants ids apart."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config import ConfigError
from input_pipeline import batching, near_duplicates
from input_pipeline.grouped import Grouped
from input_pipeline.sources.pairs import Pairs
from input_pipeline.sources.webdataset import WebDataset
from tests.input_pipeline.encoded import members, write_tar
from tests.input_pipeline.toys import toy_config

WORDS = [f"word{i}" for i in np.random.default_rng(0).permutation(400)]


@pytest.fixture(autouse=True)
def index_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TANDEM_INDEX", str(tmp_path / "index"))


def text(start, changed=()):
    """Forty words, of which some are others; one in the middle leaves 35 of 41 shingles."""
    return " ".join("other" if i in changed else word for i, word in enumerate(WORDS[start : start + 40]))


def connected(alike):
    """Which things [N N] are connected by pairs that are, naively."""
    reach = alike | np.eye(len(alike), dtype=bool)
    for _ in range(len(alike)):
        reach = reach @ reach
    return reach


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.sampled_from([0.3, 0.6, 0.9]), st.integers(0, 100))
def test_groups_and_repeats_by_definition(kinds, similarity, seed):
    """Rows are noisy copies of four; those that agree in `similarity` of their numbers share a band with certainty at these shares."""
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, 2**32, (4, near_duplicates.SIZE), np.uint32)[kinds]
    noisy = rng.random(numbers.shape) < rng.choice([0.0, 0.02, 0.7], (len(kinds), 1))
    numbers = np.where(noisy, rng.integers(0, 2**32, numbers.shape, np.uint32), numbers)
    share = (numbers[:, None] == numbers).mean(axis=-1)
    rows = near_duplicates.band_rows(similarity)
    bands = numbers[:, : near_duplicates.SIZE // rows * rows].reshape(len(kinds), -1, rows)
    alike = (share >= similarity) & (bands[:, None] == bands).all(axis=-1).any(axis=-1)
    found = near_duplicates.groups(numbers, similarity)
    np.testing.assert_array_equal(found[:, None] == found, connected(alike))
    kept = []
    for i in range(len(kinds)):
        if not any(alike[i, j] for j in kept):
            kept.append(i)
    assert np.flatnonzero(~near_duplicates.repeated(numbers, similarity)).tolist() == kept


def pairs(folder, bad=True):
    """Twelve rows: 0, 5 and 7 by their queries, 2 and 3 by their answers; 7 and 9 by an id of their own; 4 cannot be read if `bad`."""
    query = {5: text(0, [20]), 7: text(0, [39])}
    answer = {3: text(82, [0]), 2: text(82)}
    rows = [
        {"query": query.get(i, text(4 * i if i else 0)[: 40 + i]), "positive": answer.get(i, f"answer {i}"), "id": i} for i in range(12)
    ]
    rows[0]["query"], rows[9]["id"], rows[4]["query"] = text(0), 7, 3 if bad else rows[4]["query"]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Pairs(files=(str(path),), id="id")


def test_records_share_an_id_through_any_text_or_their_own(tmp_path):
    source = pairs(tmp_path)
    found = Grouped(source, 0.7)
    same = {frozenset((0, 5, 7, 9)), frozenset((2, 3))}
    groups = [frozenset(j for j in range(12) if found.id(j) == found.id(i)) for i in range(12)]
    assert {group for group in groups if len(group) > 1} == same and found.counts == {"id": len(set(groups))}
    assert found[5] == source[5] | {"id": found.id(0)} and list(found.texts()) == list(source.texts())
    assert found.read(5, np.random.default_rng(0))["id"] == pickle.loads(pickle.dumps(found)).id(5) == found.id(7)
    strict = Grouped(source, 1.0)
    assert strict.counts == {"id": 11} and strict.id(7) == strict.id(9)


def test_captions_are_compared_without_their_images(tmp_path):
    rows = [
        m
        for i, caption in enumerate([text(0), text(100), text(0, [5]), text(200)])
        for m in (members(i)[0], (members(i)[1][0], caption.encode()))
    ]
    rows = [(name, data) for name, data in rows if name != members(2)[0][0]] + [(members(2)[0][0], b"no image")]
    source = WebDataset(shards=(write_tar(tmp_path / "a.tar", rows),))
    found = Grouped(source, 0.7)
    assert len(found) == len(source) and found.id(0) != found.id(1)


def test_they_are_compared_once(tmp_path, monkeypatch):
    source = pairs(tmp_path)
    first = [Grouped(source, 0.7).id(i) for i in range(12)]
    monkeypatch.setattr(near_duplicates, "signature", lambda text: pytest.fail("compared again"))
    assert [Grouped(source, 0.7).id(i) for i in range(12)] == first


def test_near_duplicates_never_meet_in_a_batch(tmp_path):
    pairs(tmp_path, bad=False)
    entry = dict(
        name="pairs", weight=1.0, options=dict(files=(str(tmp_path / "rows.jsonl"),)), near_duplicates=0.7, prompts=dict(query="Find: ")
    )
    tokens = dict(name="tokenize", options=dict(length=4))
    data = toy_config(distinct=True, global_batch=3, sources=dict(main=entry), transforms=dict(query=tokens, passage=tokens))
    sources = batching.make_sources(data)
    tokenizer = batching.make_tokenizer(data, sources)
    alike = {0: 0, 5: 0, 7: 0, 2: 2, 3: 2}
    for apart in (True, False):
        data.distinct, met = apart, False
        with batching.batches(data, sources, tokenizer, seed=0) as rows:
            for batch in (next(rows) for _ in range(40)):
                kinds = [alike.get(record, record) for record in batch["record"].tolist()]
                assert [kinds.count(kind) for kind in kinds] == [(batch["id"] == number).sum() for number in batch["id"]]
                met |= len(set(kinds)) < 3
        assert met != apart
    entry["near_duplicates"] = 1.5
    with pytest.raises(ConfigError, match="config.data.sources.main: near_duplicates is 1.5; set it above 0"):
        batching.make_sources(toy_config(sources=dict(main=entry)))
