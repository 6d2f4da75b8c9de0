"""Sets where a word decides: files in miniature, and the real folders where they are."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from input_pipeline import local_matching


def png(value):
    buffer = io.BytesIO()
    Image.fromarray(np.full((2, 2), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def boxes(tmp_path):
    """One presentation with true and false images, one of true ones alone."""
    rows = [("5-0", "a", "true"), ("5-1", "a", "false"), ("5-2", "a", "true"), ("5-3", "a", "false"), ("6-0", "b", "true")]
    lines = [json.dumps(dict(identifier=i, sentence=s, label=y, directory="3")) for i, s, y in rows]
    (tmp_path / "dev.json").write_text("\n".join(lines) + "\n")
    (tmp_path / "images/3").mkdir(parents=True)
    for number, (name, *_) in enumerate(rows):
        for k in range(6):
            (tmp_path / f"images/3/dev-{name}-{k}.png").write_bytes(png(10 * number + k))
    return tmp_path


def test_sentences_are_true_or_false_of_images(boxes):
    pairs = local_matching.Nlvr(path=str(boxes), orders=2).pairs()
    assert [image[0, 0, 0] for image in pairs.first] == [0, 10, 20, 30, 40, 1, 11, 21, 31, 41]
    assert list(pairs.second) == ["a"] * 4 + ["b"] + ["a"] * 4 + ["b"] and pairs.score.tolist() == [1, 0, 1, 0, 1] * 2
    assert len(local_matching.Nlvr(path=str(boxes)).pairs().first) == 30
    with pytest.raises(ValueError, match="6 images, not 7; set options.orders"):
        local_matching.Nlvr(path=str(boxes), orders=7)


def test_a_sentence_picks_the_image_that_it_is_true_of(boxes):
    task = local_matching.Nlvr(path=str(boxes), orders=2).candidates()
    shown = [[int(task.candidates[i][0, 0, 0]) for i in own] for own in task.lists]
    assert shown == [[0, 10, 30], [20, 10, 30], [1, 11, 31], [21, 11, 31]] and list(task.queries) == ["a"] * 4
    assert [int(task.candidates[i][0, 0, 0]) for i in task.right] == [0, 20, 1, 21]


def captions(folder, rows):
    lines = [f"{i}\tval2014/COCO_val2014_{image:012d}.jpg\t{text}\n" for i, (image, text) in enumerate(rows)]
    (folder / local_matching.CAPTIONS).write_text("".join(lines), encoding="utf-8")


def test_captions_find_those_of_their_photo(tmp_path):
    captions(tmp_path, [(7, f"cat {i}") for i in range(6)] + [(8, "dog 0"), (8, "dog 1"), (8, "cat 1")])
    task = local_matching.CocoCaptions(path=str(tmp_path)).ranking()
    assert task.queries == ["cat 0", "dog 0"] and task.corpus == ["cat 1", "cat 2", "cat 3", "cat 4", "dog 1"]  # the sixth is left out
    assert task.relevant.tolist() == [[0, 0], [0, 1], [0, 2], [0, 3], [1, 0], [1, 4]]


def test_lists_hold_the_right_caption_once_in_any_place(tmp_path, monkeypatch):
    monkeypatch.setattr(local_matching, "LISTED", 5)
    captions(tmp_path, [(i, f"{kind} {i if kind == 'q' else i % 30}") for i in range(40) for kind in "qp"])
    task = local_matching.CocoCaptions(path=str(tmp_path)).candidates()
    assert len(task.candidates) == 30 and [task.candidates[i] for i in task.right] == [f"p {i % 30}" for i in range(40)]
    places = [own.index(right) for own, right in zip(task.lists, task.right, strict=True)]
    assert all(len(set(own)) == 5 for own in task.lists) and set(places) == set(range(5))
    again, other = (local_matching.CocoCaptions(path=str(tmp_path), seed=seed).candidates().lists for seed in (0, 1))
    assert task.lists == again != other
    monkeypatch.setattr(local_matching, "LISTED", 100)
    assert all(sorted(own) == list(range(30)) for own in local_matching.CocoCaptions(path=str(tmp_path)).candidates().lists)


def crepe(folder, **items):
    names = ("filename", "caption", "negative_caption")
    for kind in local_matching.SUGARCREPE:
        rows = {str(i): dict(zip(names, row, strict=True)) for i, row in enumerate(items.get(kind, ()))}
        (folder / f"{kind}.json").write_text(json.dumps(rows))


def test_another_caption_stands_for_the_photo_where_one_is_known(tmp_path):
    captions(tmp_path, [(7, "Two cats."), (7, "A pair of cats"), (8, "alone")])
    first = ("000000000007.jpg", "two cats", "two dogs")
    crepe(
        tmp_path, swap_obj=[first, ("000000000007.jpg", "edited", "x")], add_att=[("000000000008.jpg", "alone", "x"), ("9.jpg", "y", "z")]
    )
    task = local_matching.SugarCrepe(path=str(tmp_path)).candidates()
    assert (task.queries, task.candidates, task.lists, task.right.tolist()) == (["A pair of cats"], ["two cats", "two dogs"], [[0, 1]], [0])
    assert task.groups == ["swap_obj"]


def test_photos_make_it_the_published_test(tmp_path):
    captions(tmp_path, [(7, "Two cats.")])
    crepe(tmp_path, swap_att=[("b.jpg", "p", "n")], add_obj=[("a.jpg", "q", "m")])
    (tmp_path / "a.jpg").write_bytes(png(1))
    with pytest.raises(ValueError, match="1 of 2 images are not in .*: b.jpg"):
        local_matching.SugarCrepe(path=str(tmp_path), images=str(tmp_path)).candidates()
    (tmp_path / "b.jpg").write_bytes(png(2))
    task = local_matching.SugarCrepe(path=str(tmp_path), images=str(tmp_path)).candidates()
    assert [image[0, 0, 0] for image in task.queries] == [1, 2] and task.groups == ["add_obj", "swap_att"]
    assert task.candidates == ["q", "m", "p", "n"] and task.lists == [[0, 1], [2, 3]]


def test_the_real_sets_have_what_their_publishers_say(shared_data):
    boxes = local_matching.Nlvr(path=str(shared_data / "nlvr_dev"))
    pairs, chosen = boxes.pairs(), boxes.candidates()
    assert len(pairs.first) == 5934 and pairs.score.mean() == pytest.approx(547 / 989) and pairs.first[0].shape == (100, 400, 3)
    assert len(chosen.queries) == 2904 and sum(map(len, chosen.lists)) == 822 * 2 + 2064 * 3 + 18 * 4
    folder = dict(path=str(shared_data / "sugarcrepe_coco5k"))
    lists = local_matching.CocoCaptions(**folder).candidates()
    assert len(lists.queries) == 5000 and set(map(len, lists.lists)) == {100}
    items = local_matching.SugarCrepe(**folder)
    kinds = items.candidates().groups
    assert len(items._items) == 7511 and {kind: kinds.count(kind) for kind in local_matching.SUGARCREPE} == {
        "add_att": 82, "add_obj": 211, "replace_att": 100, "replace_obj": 189, "replace_rel": 166, "swap_att": 71, "swap_obj": 33,
    }  # fmt: skip
