"""Sets of sentences with classes: their lines and splits in miniature, and the real folder where it is."""

import numpy as np
import pytest

from input_pipeline import labelled_text


def write(folder, name, *lines):
    (folder / name).write_bytes("".join(line + "\n" for line in lines).encode("latin-1"))


def test_lines_end_at_newlines_alone(tmp_path):
    write(tmp_path, "TREC.train.all", "0 who \x85 me ? ", "5 3 = 3")
    write(tmp_path, "TREC.test.all", "4 where ?")
    task = labelled_text.Trec(path=str(tmp_path)).probe()
    assert (list(task.train.values), task.train.labels.tolist()) == (["who \x85 me ?", "3 = 3"], [0, 5])
    assert list(task.test.values) == ["where ?"] and task.validation is None
    assert labelled_text.Trec(path=str(tmp_path)).labelled().labels.tolist() == [4]
    assert labelled_text.Trec(path=str(tmp_path), split="train").labelled().labels.tolist() == [0, 5]


def test_dev_is_there_to_choose_on(tmp_path):
    for label, split in enumerate(("train", "test", "dev")):
        write(tmp_path, f"stsa.fine.{split}", f"{label} a {split}")
    task = labelled_text.Sst(path=str(tmp_path), classes="fine").probe()
    assert [part.values[0] for part in (task.train, task.test, task.validation)] == ["a train", "a test", "a dev"]
    assert [part.labels.tolist() for part in (task.train, task.test, task.validation)] == [[0], [1], [2]]


@pytest.mark.parametrize("make, name", [(labelled_text.Mr, "rt-polarity.all"), (labelled_text.Subj, "subj.all")])
def test_ten_folds_measure_every_row_once(tmp_path, make, name):
    write(tmp_path, name, *(f"{int(i % 3 == 0)} row {i}" for i in range(45)))
    tasks = [make(path=str(tmp_path), fold=fold).probe() for fold in range(10)]
    everything = sorted(make(path=str(tmp_path)).labelled().values)
    assert sorted(value for task in tasks for value in task.test.values) == everything
    for task in tasks:
        assert sorted([*task.train.values, *task.test.values]) == everything
        for part in (task.train, task.test):
            assert part.labels.tolist() == [int(int(value.split()[1]) % 3 == 0) for value in part.values]
            assert set(part.labels.tolist()) == {0, 1}


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda path: labelled_text.Trec(path=path, split="dev"), "no split 'dev'; set options.split to one of: train, test"),
        (lambda path: labelled_text.Sst(path=path, classes="all"), "no classes 'all'; set options.classes to one of: binary, fine"),
        (lambda path: labelled_text.Mr(path=path), "there is no file .*rt-polarity.all; set options.path"),
        (lambda path: labelled_text.Subj(path=path, fold=10), "no fold 10; set options.fold to 0 to 9"),
    ],
)
def test_what_is_not_there_names_the_option(tmp_path, make, message):
    write(tmp_path, "subj.all", "0 a")
    with pytest.raises(ValueError, match=message):
        make(str(tmp_path))


def test_the_real_sets_have_what_their_publishers_say(shared_data):
    path = str(shared_data / "trec_sst_mr_subj")
    questions = labelled_text.Trec(path=path).probe()
    assert np.bincount(questions.train.labels).tolist() == [1162, 1250, 86, 1223, 835, 896] and len(questions.test.values) == 500
    for classes, sizes in (("fine", (8544, 2210, 1101)), ("binary", (6920, 1821, 872))):
        task = labelled_text.Sst(path=path, classes=classes).probe()
        assert tuple(len(part.values) for part in (task.train, task.test, task.validation)) == sizes
        assert len(set(task.train.labels.tolist())) == (5 if classes == "fine" else 2)
    assert np.bincount(labelled_text.Mr(path=path).labelled().labels).tolist() == [5331, 5331]
    assert np.bincount(labelled_text.Subj(path=path).labelled().labels).tolist() == [5000, 5000]
    assert len(labelled_text.Mr(path=path, fold=9).probe().test.values) == 1066
