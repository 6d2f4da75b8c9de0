"""Rendering, homoglyphs and splits of `glyphs`."""

import unicodedata

import numpy as np
import pytest

from input_pipeline import glyph_images
from input_pipeline.sources.glyphs import HELDOUT_FACES, SPLITS, Glyphs
from tests.oracles import components

SIZE = 16


@pytest.fixture(scope="module")
def rendered():
    return glyph_images.render(SIZE)


@pytest.fixture(scope="module")
def splits():
    return {split: Glyphs(split=split, size=SIZE) for split in SPLITS}


def column(source, name):
    return [source[i][name] for i in range(len(source))]


def test_the_set_is_as_large_as_the_documents_say(rendered):
    assert len(rendered.faces) == 17
    assert len(rendered.code) == 54_205 and len(set(rendered.code.tolist())) == 7_346


def test_no_image_is_empty_and_ink_is_centred(rendered):
    columns = rendered.images[..., 0].any(axis=1)
    assert columns.any(axis=1).all()
    left, right = columns.argmax(axis=1), columns[:, ::-1].argmax(axis=1)
    assert (np.abs(left - right) <= 1).all()


def test_case_and_accents_keep_their_place(rendered):
    face = rendered.faces.index("DejaVuSans")

    def rows(character):
        (image,) = rendered.images[(rendered.face == face) & (rendered.code == ord(character))]
        inked = np.flatnonzero(image.any(axis=(1, 2)))
        return inked[0], inked[-1]

    assert rows("x")[0] > rows("X")[0] and rows("x")[1] == rows("X")[1]  # smaller, on the same line
    assert rows(",")[0] > rows("'")[1]  # below and above
    assert rows("é")[0] < rows("e")[0] and rows("é")[1] == rows("e")[1]
    assert rows("p")[1] > rows("x")[1]


def test_large_ink_shrinks_instead_of_being_cut(rendered):
    face = rendered.faces.index("STIXGeneral")
    (wide,) = rendered.images[(rendered.face == face) & (rendered.code == ord("⟵"))]  # long arrow
    columns = wide[..., 0].max(axis=0)
    assert columns.argmax() <= 2 and SIZE - 2 <= (columns > 0).sum() <= SIZE  # with its head, and no smaller than it must be


def test_pixel_ids_are_equal_where_the_images_are(rendered):
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.choice(len(rendered.code), 150), np.flatnonzero(np.isin(rendered.code, [ord("A"), 0x391, 0x410]))])
    for i in rows:
        same = (rendered.images[rows] == rendered.images[i]).all(axis=(1, 2, 3))
        np.testing.assert_array_equal(same, rendered.pixel_id[rows] == rendered.pixel_id[i])
    assert set(np.unique(rendered.pixel_id)) == set(range(rendered.pixel_id.max() + 1))


def test_homoglyph_classes_are_connected_components():
    rng = np.random.default_rng(0)
    for _ in range(20):
        code, pixel = rng.integers(0, 30, 40), rng.integers(100, 130, 40)
        joined = components.components(list(zip(code.tolist(), pixel.tolist(), strict=True)))
        assert glyph_images.homoglyph_classes(code, pixel) == sorted(sorted(c for c in nodes if c < 100) for nodes in joined)


def test_unseen_characters_share_no_image_with_the_others(splits):
    train, unseen = splits["train"], splits["unseen"]
    assert len(set(column(unseen, "id"))) == 500
    assert not set(column(train, "id")) & set(column(unseen, "id"))
    assert not set(column(train, "pixel_id")) & set(column(unseen, "pixel_id"))
    assert not set(train.texts()) & set(unseen.texts())
    assert len(train) + len(unseen) == 54_205 and len(list(train.texts())) == 6_846


def test_ids_mean_the_same_in_every_split(splits):
    name = {}
    for source in splits.values():
        for i in range(0, len(source), 7):
            assert name.setdefault(source[i]["id"], source[i]["text"]) == source[i]["text"]
    assert len(set(name.values())) == len(name)


def test_heldout_faces_have_seen_characters_and_unseen_images(splits):
    faces, train = splits["faces"], splits["train_faces"]
    number = {train.faces.index(name) for name in HELDOUT_FACES}
    assert set(column(faces, "face")) == number and not set(column(train, "face")) & number
    assert set(column(faces, "id")) <= set(column(train, "id"))
    assert not set(column(faces, "pixel_id")) & set(column(train, "pixel_id"))
    assert not set(column(train, "id")) & set(column(splits["unseen"], "id"))
    assert len(list(faces.texts())) > 1000


def test_prompts_of_a_script_are_names_that_training_shows(splits):
    task, seen = splits["unseen"].classification(), set(splits["train"].texts())
    assert all(set(some) <= seen and 0 < len(some) <= 100 for some in task.prompts)
    assert all(name.startswith(script) for script, some in zip(task.class_names, task.prompts, strict=True) for name in some)


@pytest.mark.parametrize("split", ["unseen", "faces"])
def test_a_name_is_relevant_if_its_character_looks_the_same_in_the_face_of_the_image(splits, split):
    source = splits[split]
    task = source.retrieval()
    records = [source[i] for i in range(len(source))]
    pairs = set(map(tuple, task.relevant.tolist()))
    several = np.flatnonzero(np.bincount(task.relevant[:, 0]) > 1)
    assert len(several) > 50
    for i in [*several[:25].tolist(), *range(0, len(source), len(source) // 25)]:
        own = records[i]
        alike = {r["text"] for r in records if r["face"] == own["face"] and np.array_equal(r["image"], own["image"])}
        assert own["text"] in alike
        assert {task.texts[j] for j in range(len(task.texts)) if (i, j) in pairs} == alike


def test_captions_are_names_in_lower_case(splits):
    for text in list(splits["unseen"].texts())[::25]:
        assert unicodedata.lookup(text.upper())
        assert text == text.lower()


def test_groups_and_labels_follow_the_name(splits):
    task, classes = splits["unseen"].retrieval(), splits["unseen"].classification()
    texts = column(splits["unseen"], "text")
    for text, group in zip(texts, task.groups, strict=True):
        assert text.startswith(group) or group == "other"
    kept = [text for text, group in zip(texts, task.groups, strict=True) if group != "other"]
    assert len(kept) == len(classes.labels)
    assert all(text.startswith(classes.class_names[label]) for text, label in zip(kept, classes.labels, strict=True))


def test_scripts_divide_a_split(splits):
    every = sorted({*splits["unseen"].retrieval().groups})
    greek, others = (
        Glyphs(split="unseen", size=SIZE, scripts=tuple(some)) for some in (["greek"], [name for name in every if name != "greek"])
    )
    assert set(column(greek, "text")) == {text for text in splits["unseen"].texts() if text.startswith("greek")}
    both = sorted(record["id"] for source in (greek, others) for record in map(source.__getitem__, range(len(source))))
    assert both == sorted(column(splits["unseen"], "id"))


def test_mistakes_name_the_option():
    with pytest.raises(ValueError, match=r"no writing system \['klingon'\]; choose options.scripts from: arabic,.*other"):
        Glyphs(scripts=("greek", "klingon"))
    with pytest.raises(ValueError, match="set options.split to one of: train, unseen, train_faces, faces"):
        Glyphs(split="test")
    with pytest.raises(ValueError, match="set options.heldout to 7346 or less"):
        Glyphs(split="unseen", size=8, heldout=8000)
