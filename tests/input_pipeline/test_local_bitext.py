"""Multi30k in miniature and the real folder."""

import pytest

from input_pipeline.local_bitext import Multi30k


def test_captions_stand_beside_their_translations(tmp_path):
    (tmp_path / "task1").mkdir()
    (tmp_path / "task1" / "val.de").write_text("ein Hund\n\nzwei Katzen\n", encoding="utf-8")
    (tmp_path / "task1" / "val.en").write_text("a dog\n\ntwo cats\n", encoding="utf-8")
    task = Multi30k(path=str(tmp_path), split="val").bitext()
    assert (task.sources, task.targets, task.gold.tolist()) == (["ein Hund", "", "zwei Katzen"], ["a dog", "", "two cats"], [0, 1, 2])
    (tmp_path / "task1" / "val.en").write_text("a dog\n", encoding="utf-8")
    with pytest.raises(ValueError, match="3 captions have 1 translations"):
        Multi30k(path=str(tmp_path), split="val").bitext()
    with pytest.raises(ValueError, match="no first 'se'; set options.first to one of: cs, de, en, fr"):
        Multi30k(path=str(tmp_path), split="val", first="se")
    with pytest.raises(ValueError, match="there is no file .*test_2016_flickr.de; set options.path"):
        Multi30k(path=str(tmp_path))


def test_the_real_captions(shared_data):
    task = Multi30k(path=str(shared_data / "multi30k_p"), first="fr").bitext()
    assert len(task.sources) == len(task.targets) == 992 and "" not in task.sources and "" not in task.targets
