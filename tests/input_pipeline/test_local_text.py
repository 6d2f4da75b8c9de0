"""Published sets: judgements by name, files of each format in miniature, and the real folders where they are."""

import json
import zipfile

import numpy as np
import pytest

from core.config import ConfigError
from input_pipeline import EVAL_SETS, SOURCES, local_text
from input_pipeline.batching import make_source, make_sources
from input_pipeline.tasks import judgements, probe_task
from tests.input_pipeline import toys


def test_names_are_no_sources():
    assert not set(EVAL_SETS) & set(SOURCES)
    data = toys.config(sources=dict(main=dict(name="stsb", weight=1.0, options={})))
    with pytest.raises(ConfigError, match="main.name"):
        make_sources(data)


def test_judgements_become_indices():
    rows = judgements([("b", "9", 1), ("a", "10", 0)], ["a", "b"], ["9", "10"])
    assert rows.tolist() == [[1, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize(
    "rows, queries, corpus, message",
    [
        ([("a", "x", 1)], ["a", "b"], [], "there is no candidate"),
        ([("a", "x", 1)], [], ["x"], "there is no query"),
        ([("a", "x", 1)], ["a", "a"], ["x"], "1 query ids stand twice: a"),
        ([("a", "x", 1)], ["a"], ["x", "y", "x"], "1 candidate ids stand twice: x"),
        ([("a", "x", 1), ("c", "x", 1)], ["a"], ["x"], "name 1 queries that do not exist: c"),
        ([("a", f"d{i}", 1) for i in range(7)], ["a"], ["x"], "name 7 candidates that do not exist: d0, d1, d2, d3, d4, ..."),
        ([("a", "x", 1), ("a", "x", 2)], ["a"], ["x"], "judged twice"),
        ([], ["a"], ["x"], "no judgement"),
    ],
)
def test_judgements_that_do_not_fit_are_refused(rows, queries, corpus, message):
    with pytest.raises(ValueError, match=message):
        judgements(rows, queries, corpus)


def test_a_missing_folder_names_the_option(tmp_path):
    entry = type("Entry", (dict,), dict(name="banking77", options=dict(path=str(tmp_path))))()
    with pytest.raises(ConfigError, match=r"config.evals.x.data: there is no file .*test.csv; set options.path"):
        make_source(entry, "config.evals.x.data", EVAL_SETS)
    with pytest.raises(ValueError, match="no split 'dev'; set options.split to one of: test, train"):
        local_text.Banking77(path=str(tmp_path), split="dev")


def test_sentences_of_two_languages_stand_side_by_side(tmp_path):
    (tmp_path / "stsb-en-test.csv").write_text('"one, two",three,2.5\na,b,0\n')
    (tmp_path / "stsb-de-test.csv").write_text("eins,drei,2.5\nc,d,0\n")
    task = local_text.Stsb(path=str(tmp_path), second="de").similarity()
    assert (task.first, task.second, task.score.tolist()) == (["one, two", "a"], ["drei", "d"], [2.5, 0])
    (tmp_path / "stsb-de-test.csv").write_text("eins,drei,1.5\nc,d,0\n")
    with pytest.raises(ValueError, match="rate their rows differently"):
        local_text.Stsb(path=str(tmp_path), second="de").similarity()


def test_abstracts_are_printed_arrays(tmp_path):
    with zipfile.ZipFile(tmp_path / "scifact.zip", "w") as archive:
        archive.writestr(
            "corpus_train.csv", 'doc_id,title,abstract,structured\n7,A title,"[\'It\\\'s one.\'\n ""It\'s two.""]",False\n8,B,[],True\n'
        )
        archive.writestr(
            "claims_validation.csv",
            "id,claim,evidence_doc_id,evidence_label,evidence_sentences,cited_doc_ids\n"
            "3,Claim.,7,SUPPORT,[2 5],[7 8]\n3,Claim.,7,SUPPORT,[7],[7 8]\n5,Other.,,,[],[ 8]\n",
        )
    task = local_text.SciFact(path=str(tmp_path)).ranking()
    assert task.corpus == ["A title It's one. It's two.", "B "] and task.queries == ["Claim.", "Other."]
    assert task.relevant.tolist() == [[0, 0, 1], [0, 1, 1], [1, 1, 1]] and task.corpus_ids == ["7", "8"]


def test_questions_are_numbered_by_place(tmp_path):
    (tmp_path / "cran.all.1400.xml").write_text(
        "<doc>\n<docno>1</docno>\n<text>one\n text</text>\n</doc>\n<doc><docno>2</docno><text></text></doc>"
    )
    tops = "<top><num> 1</num><title>\nfirst .\n</title></top><top><num> 365</num><title>last</title></top>"
    (tmp_path / "cran.qry.xml").write_text(f"<?xml version='1.0'?><xml>{tops}</xml>")
    (tmp_path / "cranqrel.trec.txt").write_text("2 0 1 1\n1 0 2 0\n")
    task = local_text.Cranfield(path=str(tmp_path)).ranking()
    assert (task.corpus, task.queries) == (["one text", ""], ["first .", "last"]) and task.relevant.tolist() == [[1, 0, 1], [0, 1, 0]]


def test_functions_are_found_by_index_and_judged_to_match(tmp_path):
    (tmp_path / "code_idx_map.txt").write_text(json.dumps({"def b(): 1": 1, "def a(): 0": 0}))
    (tmp_path / "cosqa-retrieval-dev-500.json").write_text(json.dumps([{"idx": "q7", "doc": "how to a", "retrieval_idx": 0}]))
    (tmp_path / "cosqa-dev.json").write_text(json.dumps([{"doc": "x", "code": "y", "label": 1}]))
    data = local_text.CoSqa(path=str(tmp_path), split="dev")
    task = data.ranking()
    assert task.corpus[task.relevant[0, 1]] == "def a(): 0" and task.query_ids == ["q7"]
    assert (data.pairs().first, data.pairs().second, data.pairs().score.tolist()) == (["x"], ["y"], [1])


def test_lines_are_translations(tmp_path):
    (tmp_path / "tatoeba.deu-eng.deu").write_text("eins\nzwei\u2028\n", encoding="utf-8")  # U+2028 ends no line here
    (tmp_path / "tatoeba.deu-eng.eng").write_text("one\ntwo\n")
    task = local_text.Tatoeba(path=str(tmp_path)).bitext()
    assert (list(task.sources), list(task.targets), task.gold.tolist()) == (["eins", "zwei\u2028"], ["one", "two"], [0, 1])
    (tmp_path / "tatoeba.deu-eng.eng").write_text("one\n")
    with pytest.raises(ValueError, match="2 sentences have 1 translations"):
        local_text.Tatoeba(path=str(tmp_path)).bitext()


def test_the_real_sets_have_what_their_publishers_say(shared_data):
    folder = lambda name: dict(path=str(shared_data / name))
    for first, second in (("en", ""), ("zh", "es")):
        pairs = local_text.Stsb(first=first, second=second, **folder("stsb_mt_p")).similarity()
        assert len(pairs.first) == len(pairs.second) == 1379 and 0 <= pairs.score.min() < pairs.score.max() == 5
    claims = local_text.SciFact(**folder("scifact")).ranking()
    assert (len(claims.queries), len(claims.corpus), len(claims.relevant)) == (300, 5183, 339)
    questions = local_text.Cranfield(**folder("cranfield")).ranking()
    assert (len(questions.queries), len(questions.corpus), questions.relevant.shape) == (225, 1400, (1837, 3))
    code = local_text.CoSqa(**folder("cosqa"))
    assert (len(code.ranking().queries), len(code.ranking().corpus), len(code.ranking().relevant)) == (500, 6267, 500)
    assert np.bincount(code.pairs().score).tolist() == [291, 313]
    intents = local_text.Banking77(**folder("banking77")).labelled()
    assert len(intents.values) == 3080 and set(intents.labels.tolist()) == set(range(77))
    assert len(local_text.Tatoeba(language="swh", **folder("tatoeba_p")).bitext().sources) == 390


def test_classes_have_the_same_numbers_in_all_parts():
    task = probe_task([("a", "x"), ("b", "z")], [("c", "z"), ("d", "y")], [("e", "z")])
    assert (task.train.values, task.train.labels.tolist()) == (["a", "b"], [0, 2])
    assert task.test.labels.tolist() == [2, 1] and task.validation.labels.tolist() == [2]
    with pytest.raises(ValueError, match="test has no row"):
        probe_task([("a", "x")], [])


def test_questions_of_a_bank_are_learnt_and_asked(tmp_path):
    (tmp_path / "train.csv").write_text("text,category\nlost my card,lost\nwhat rate,rate\n")
    (tmp_path / "test.csv").write_text("text,category\nthe rate?,rate\n")
    data = local_text.Banking77(path=str(tmp_path))
    assert list(data.labelled().values) == ["the rate?"] and data.labelled().labels.tolist() == [0]
    task = data.probe()
    assert (task.train.values, task.train.labels.tolist()) == (["lost my card", "what rate"], [0, 1])
    assert (task.test.values, task.test.labels.tolist(), task.validation) == (["the rate?"], [1], None)
