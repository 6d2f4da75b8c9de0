"""Published sets of sentences with classes, read from a folder on this machine: TREC, SST, MR and Subj.

MR and SST hold the same sentences, and 4,174 sentences of Subj are also in MR: nothing may be learnt from one and measured on another.
The files are those of the folder `trec_sst_mr_subj`: a label, a blank and a tokenised sentence on each line, Latin-1.
"""

import numpy as np

from input_pipeline.local_files import find, one_of
from input_pipeline.tasks import Labelled, ProbeTask

FOLDER = "data/trec_sst_mr_subj"
FOLDS = 10


class Trec:
    """TREC: 5,452 questions to learn from and 500 to be measured on, in six kinds of answers.

    The kinds are, from 0: description, entity, abbreviation, human, location, number.

    Args:
        path: folder with `TREC.<split>.all`.
        split: that `labelled()` delivers, train or test.

    Source: Li and Roth 2002.
    """

    def __init__(self, *, path: str = FOLDER, split: str = "test"):
        self._path, self._labelled = path, _read(path, f"TREC.{one_of(split, ('train', 'test'))}.all")

    def labelled(self) -> Labelled:
        return self._labelled

    def probe(self) -> ProbeTask:
        """The publisher's train and test, whatever the option `split` says."""
        return ProbeTask(_read(self._path, "TREC.train.all"), _read(self._path, "TREC.test.all"))


class Sst:
    """Stanford Sentiment Treebank: whole sentences of film reviews; its phrases are not used.

    Args:
        path: folder with `stsa.<classes>.<split>`.
        split: that `labelled()` delivers, train, dev or test.
        classes: fine, five from very negative to very positive (8,544 / 1,101 / 2,210 sentences); binary, negative and positive, without
            the neutral ones (6,920 / 872 / 1,821).

    Source: Socher et al. 2013.
    """

    def __init__(self, *, path: str = FOLDER, split: str = "test", classes: str = "binary"):
        self._name = f"stsa.{one_of(classes, ('binary', 'fine'), 'classes')}"
        self._path, self._labelled = path, _read(path, f"{self._name}.{one_of(split, ('train', 'dev', 'test'))}")

    def labelled(self) -> Labelled:
        return self._labelled

    def probe(self) -> ProbeTask:
        """The publisher's train, test and dev, whatever the option `split` says."""
        return ProbeTask(*(_read(self._path, f"{self._name}.{split}") for split in ("train", "test", "dev")))


class Mr:
    """MR: 10,662 sentences of film reviews, negative and positive, without splits.

    Args:
        path: folder with `rt-polarity.all`.
        fold: of ten, from 0, that `probe()` measures while the other nine are learnt from. Published numbers are means over ten folds
            whose rows nobody agreed on; here a row is in the fold of its place in the file, counted within its class, modulo 10.

    Source: Pang and Lee 2005.
    """

    def __init__(self, *, path: str = FOLDER, fold: int = 0):
        self._labelled, self._fold = _read(path, "rt-polarity.all"), _check_fold(fold)

    def labelled(self) -> Labelled:
        """All of them."""
        return self._labelled

    def probe(self) -> ProbeTask:
        return _folds(self._labelled, self._fold)


class Subj:
    """Subj: 5,000 subjective sentences of film reviews and 5,000 objective ones of plots, without splits.

    Args:
        path: folder with `subj.all`.
        fold: as in `Mr`.

    Source: Pang and Lee 2004.
    """

    def __init__(self, *, path: str = FOLDER, fold: int = 0):
        self._labelled, self._fold = _read(path, "subj.all"), _check_fold(fold)

    def labelled(self) -> Labelled:
        """All of them."""
        return self._labelled

    def probe(self) -> ProbeTask:
        return _folds(self._labelled, self._fold)


def _folds(labelled: Labelled, fold: int) -> ProbeTask:
    labels = labelled.labels
    place = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        place[labels == label] = np.arange(np.count_nonzero(labels == label)) % FOLDS
    part = lambda rows: Labelled([labelled.values[i] for i in np.flatnonzero(rows)], labels[rows])
    return ProbeTask(part(place != fold), part(place == fold))


def _check_fold(fold: int) -> int:
    if not 0 <= fold < FOLDS:
        raise ValueError(f"there is no fold {fold}; set options.fold to 0 to {FOLDS - 1}.")
    return fold


def _read(folder: str, name: str) -> Labelled:
    # Latin-1 has letters that `splitlines` takes for ends of lines (0x85), so only the newline is one.
    lines = find(folder, name).read_bytes().decode("latin-1").removesuffix("\n").split("\n")
    labels, texts = zip(*(line.strip(" ").split(" ", 1) for line in lines), strict=True)
    return Labelled(texts, np.array(labels, np.int64))
