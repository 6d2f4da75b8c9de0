"""Published sets of texts that evaluators read from folders on this machine; nothing is downloaded, nothing is trained on them.

Each class names the folder and the files of its publisher; its docstring says which protocol it follows.
"""

import ast
import csv
import io
import re
import zipfile
from collections.abc import Iterable
from xml.etree import ElementTree

import numpy as np

from input_pipeline import local_files
from input_pipeline.tasks import Bitext, Labelled, PairScores, ProbeTask, RankingTask, judgements, probe_task


class Stsb:
    """STS Benchmark: 1,379 test pairs with a mean rating from 0 to 5, and its machine translations.

    Args:
        path: folder with `stsb-<language>-<split>.csv`.
        split: train, dev or test.
        first: language of the first sentences: en, de, es, fr or zh.
        second: language of the second sentences; "" is that of the first. Rows of all languages are the same pairs.

    Source: Cer et al. 2017; translations github.com/PhilipMay/stsb-multi-mt.
    """

    def __init__(self, *, path: str = "data/stsb_mt_p", split: str = "test", first: str = "en", second: str = ""):
        self._first, self._second = (list(local_files.read_rows(path, f"stsb-{name}-{split}.csv")) for name in (first, second or first))

    def similarity(self) -> PairScores:
        one, other, score = [row[0] for row in self._first], [row[1] for row in self._second], [float(row[2]) for row in self._first]
        if score != [float(row[2]) for row in self._second]:
            raise ValueError("the two languages rate their rows differently, so rows are not the same pairs; check options.path.")
        return PairScores(one, other, np.array(score))


class SciFact:
    """SciFact as BEIR ranks it: 5,183 abstracts, 300 claims, the documents they cite as relevant.

    Args:
        path: folder with `scifact.zip`.
        split: validation (BEIR's test; the claims of the publisher's own test split have no labels) or train.

    Source: Wadden et al. 2020, arXiv:2004.14974; protocol Thakur et al. 2021, arXiv:2104.08663: title and abstract, one text.
    """

    def __init__(self, *, path: str = "data/scifact", split: str = "validation"):
        with zipfile.ZipFile(local_files.find(path, "scifact.zip")) as archive:
            read = lambda name: list(csv.DictReader(io.TextIOWrapper(archive.open(name), "utf-8", newline="")))
            self._corpus = {row["doc_id"]: f"{row['title']} {' '.join(_printed(row['abstract']))}" for row in read("corpus_train.csv")}
            self._claims = read(f"claims_{local_files.one_of(split, ('validation', 'train'))}.csv")

    def ranking(self) -> RankingTask:
        claims = {row["id"]: row["claim"] for row in self._claims}
        cited = {(row["id"], document, 1): None for row in self._claims for document in re.findall(r"\d+", row["cited_doc_ids"])}
        return _ranking(claims, self._corpus, cited)


class Cranfield:
    """Cranfield 1400: 1,400 abstracts on aerodynamics and 225 questions with 1,837 judgements, the classic test of search.

    Questions are numbered by their place, as the judgements count them, not by the numbers in their file. A text holds its title.

    Args:
        path: folder with `cran.all.1400.xml`, `cran.qry.xml` and `cranqrel.trec.txt`.

    Source: Cleverdon 1967; github.com/oussbenk/cranfield-trec-dataset.
    """

    def __init__(self, *, path: str = "data/cranfield"):
        read = lambda name: local_files.find(path, name).read_text(encoding="utf-8")
        field = lambda name, text: " ".join(re.search(rf"<{name}>(.*?)</{name}>", text, re.DOTALL)[1].split())
        documents = re.findall(r"<doc>(.*?)</doc>", read("cran.all.1400.xml"), re.DOTALL)  # no root, so no XML
        self._corpus = {field("docno", text): field("text", text) for text in documents}
        titles = [" ".join(node.text.split()) for node in ElementTree.fromstring(read("cran.qry.xml")).iter("title")]
        self._queries = {str(place): title for place, title in enumerate(titles, 1)}
        self._judged = [line.split() for line in read("cranqrel.trec.txt").splitlines() if line.strip()]

    def ranking(self) -> RankingTask:
        return _ranking(self._queries, self._corpus, ((query, document, int(grade)) for query, _, document, grade in self._judged))


class CoSqa:
    """CoSQA: web queries and Python functions: 500 queries over 6,267 functions, and 604 pairs judged to match or not.

    Args:
        path: folder with `code_idx_map.txt`, `cosqa-retrieval-<split>-500.json` and `cosqa-dev.json`.
        split: of the queries, test or dev; the judged pairs are those of dev.

    Source: Huang et al. 2021, arXiv:2105.13239.
    """

    def __init__(self, *, path: str = "data/cosqa", split: str = "test"):
        self._path, self._split = path, local_files.one_of(split, ("test", "dev"))

    def ranking(self) -> RankingTask:
        corpus = {str(number): code for code, number in local_files.read_json(self._path, "code_idx_map.txt").items()}
        rows = local_files.read_json(self._path, f"cosqa-retrieval-{self._split}-500.json")
        return _ranking({row["idx"]: row["doc"] for row in rows}, corpus, ((row["idx"], str(row["retrieval_idx"]), 1) for row in rows))

    def pairs(self) -> PairScores:
        rows = local_files.read_json(self._path, "cosqa-dev.json")
        return PairScores([row["doc"] for row in rows], [row["code"] for row in rows], np.array([row["label"] for row in rows]))


class Banking77:
    """Banking77: questions of a bank's customers (3,080 in test) in 77 intents.

    Args:
        path: folder with `<split>.csv`.
        split: test or train.

    Source: Casanueva et al. 2020, arXiv:2003.04807.
    """

    def __init__(self, *, path: str = "data/banking77", split: str = "test"):
        self._path, self._rows = path, local_files.read_rows(path, f"{local_files.one_of(split, ('test', 'train'))}.csv")[1:]

    def labelled(self) -> Labelled:
        texts, intents = zip(*self._rows, strict=True)
        return Labelled(texts, np.unique(intents, return_inverse=True)[1])

    def probe(self) -> ProbeTask:
        """Learns from the 10,003 questions of `train`, whatever the option `split` says, and is measured on `test`."""
        return probe_task(*(local_files.read_rows(self._path, f"{split}.csv")[1:] for split in ("train", "test")))


class Tatoeba:
    """Tatoeba sentences with their English translations, at most 1,000 a language; each looks up its own among them.

    Args:
        path: folder with `tatoeba.<language>-eng.<language>` and `.eng`.
        language: by three letters, for example deu.

    Source: Artetxe and Schwenk 2019, arXiv:1812.10464 (LASER).
    """

    def __init__(self, *, path: str = "data/tatoeba_p", language: str = "deu"):
        lines = lambda name: (
            local_files.find(path, f"tatoeba.{language}-eng.{name}").read_text(encoding="utf-8").removesuffix("\n").split("\n")
        )
        self._sources, self._targets = lines(language), lines("eng")

    def bitext(self) -> Bitext:
        if len(self._sources) != len(self._targets):
            raise ValueError(f"{len(self._sources)} sentences have {len(self._targets)} translations; the files must go line by line.")
        return Bitext(self._sources, self._targets, np.arange(len(self._sources)))


def _ranking(queries: dict[str, str], corpus: dict[str, str], rows: Iterable[tuple[str, str, int]]) -> RankingTask:
    names, candidates = list(queries), list(corpus)
    return RankingTask(list(queries.values()), list(corpus.values()), judgements(rows, names, candidates), names, candidates)


def _printed(text: str) -> list[str]:
    """The strings of a printed numpy array, which has no commas between them."""
    return [ast.literal_eval(one) for one in re.findall(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", text)]
