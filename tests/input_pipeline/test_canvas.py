"""Tiles on a canvas, mosaics with names, and scenes of two characters with captions that are true and false of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from input_pipeline import canvas
from input_pipeline.image import resize
from input_pipeline.sources.glyph_mosaics import GlyphMosaics
from input_pipeline.sources.glyph_scenes import RELATIONS, GlyphScenes
from input_pipeline.sources.glyphs import Glyphs

FACE = dict(heldout=60, only=("STIXGeneralBol",))


@pytest.fixture(scope="module")
def scenes():
    return GlyphScenes(size=24, **FACE)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.integers(1, 3))
def test_what_is_assembled_is_cut_into_the_same_tiles(rows, columns, height, width, channels):
    tiles = np.random.default_rng(0).integers(0, 256, (rows * columns, height, width, channels), np.uint8)
    made = canvas.assemble(list(tiles), columns)
    assert made.shape == (rows * height, columns * width, channels)
    np.testing.assert_array_equal(canvas.cut(made, rows, columns), tiles)
    for tile, (left, top, right, bottom) in zip(tiles, canvas.boxes(rows, columns), strict=True):
        y, x = (round(v * n) for v, n in ((top, rows * height), (left, columns * width)))
        np.testing.assert_array_equal(made[y : round(bottom * rows * height), x : round(right * columns * width)], tile)


@pytest.mark.parametrize("rows, columns", [(1, 1), (2, 2), (3, 2), (4, 4)])
def test_boxes_tile_the_canvas(rows, columns):
    boxes = canvas.boxes(rows, columns).astype(float)
    assert boxes.min() == 0 and boxes.max() == 1
    np.testing.assert_allclose(((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sum(), 1, rtol=1e-6)
    points = np.random.default_rng(0).uniform(size=(200, 2))
    inside = (points[:, None] >= boxes[None, :, :2]) & (points[:, None] < boxes[None, :, 2:])
    assert (inside.all(2).sum(1) == 1).all()


def test_a_grid_that_is_not_whole_is_refused():
    with pytest.raises(ValueError, match="3 tiles do not fill rows of 2"):
        canvas.assemble([np.zeros((2, 2, 1))] * 3, 2)


def test_a_caption_says_what_stands_where(scenes):
    glyphs = Glyphs(size=12, **FACE)
    shown = {(glyphs[i]["text"], glyphs[i]["image"].tobytes()) for i in range(len(glyphs))}
    for i in range(0, len(scenes), 9):
        (relation,) = [r for r in RELATIONS if f" {r} " in scenes.caption(i)]
        one, other = scenes.caption(i).split(f" {relation} ")
        image = scenes.image(i)
        ink = image[6:18] if relation == "left of" else image[:, 6:18]
        assert ink.sum() == image.sum() > 0
        first, second = canvas.cut(ink, *((1, 2) if relation == "left of" else (2, 1)))
        assert (one, first.tobytes()) in shown and (other, second.tobytes()) in shown and not scenes.alike(one, other)


def test_what_is_false_has_the_same_words_and_is_false(scenes):
    kinds = set()
    for i in range(len(scenes)):
        true, (relation,) = scenes.caption(i), [r for r in RELATIONS if f" {r} " in scenes.caption(i)]
        one, other = true.split(f" {relation} ")
        for kind, texts in scenes.false(i).items():
            kinds.add(kind)
            for text in texts:
                first, second = text.split(f" {relation} ")
                assert sorted(text.split()) == sorted(true.split()) and text != true
                assert {first, second} <= scenes._known and not (scenes.alike(first, one) and scenes.alike(second, other))
    assert kinds == {"order", "word"}
    drawn = {scenes.read(0, np.random.default_rng(seed))["negatives"][0] for seed in range(20)}
    assert drawn <= set(sum(scenes.false(0).values(), []))


def test_scenes_are_drawn_once_for_all(scenes):
    again = GlyphScenes(size=24, **FACE)
    assert [again.caption(i) for i in range(len(again))] == list(map(scenes.caption, range(len(scenes))))
    assert not any(relation in name for name in Glyphs(split="unseen", size=12, **FACE)._names for relation in RELATIONS)
    task = scenes.candidates()
    assert all(own[0] == right for own, right in zip(task.lists, task.right, strict=True)) and set(task.groups) == {"order", "word"}
    with pytest.raises(ValueError, match="set options.size to an even number"):
        GlyphScenes(size=15)


def test_a_mosaic_holds_what_its_names_say():
    source = GlyphMosaics(size=12, grids=(1, 2), **FACE)
    row_of = {(source[i]["id"], source[i]["pixel_id"]): i for i in range(len(source))}
    plain, rng, sizes = Glyphs(size=12, **FACE), np.random.default_rng(0), set()
    for i in range(0, 40):
        record = source.read(i, rng)
        assert all(np.array_equal(record[name], value) for name, value in plain[i].items())
        grid = round((record["boxes"][:, 2] > 0).sum() ** 0.5)
        sizes.add(grid)
        tiles = canvas.cut(record["canvas"], grid, grid)
        assert len(record["tiles"]) == len(record["boxes"]) == 4 and record["tiles"][grid**2 :] == [""] * (4 - grid**2)
        np.testing.assert_array_equal(record["boxes"][: grid**2], canvas.boxes(grid, grid))
        for k, tile in enumerate(tiles):
            own = source[row_of[record["tiles_id"][k], record["tiles_pixel_id"][k]]]
            assert own["text"] == record["tiles"][k]
            np.testing.assert_array_equal(tile, own["image"] if grid == 1 else resize(own["image"], 6, 6))
    assert sizes == {1, 2}
    np.testing.assert_array_equal(source[3]["canvas"], source[3]["canvas"])
    with pytest.raises(ValueError, match="do not divide 12 pixels; set options.grids"):
        GlyphMosaics(size=12, grids=(5,))
