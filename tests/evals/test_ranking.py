"""Ranked-list metrics against a walk down the list, the exact properties of trec_eval's conventions, and the BM25 control."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config import ConfigError
from evals import bm25, gallery, metrics, ranked
from evals.ranking import ranking
from input_pipeline.tasks import RankingTask
from tests.evals import toys
from tests.oracles import ranking as oracle

KS = (1, 3, 8)


@st.composite
def tasks(draw):
    """Few distinct scores, so that ties are common; grades from -1 to 3; some queries unjudged, some without a relevant candidate."""
    n, m = draw(st.integers(1, 5)), draw(st.integers(1, 14))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = rng.integers(0, draw(st.integers(1, 9)), (n, m)).astype(np.float32) / 8
    asked = [q for q in range(n) if q == 0 or rng.random() < 0.8]
    rows = [(q, c, rng.integers(-1, 4)) for q in asked for c in rng.permutation(m)[: rng.integers(1, m + 1)]]
    rng.shuffle(rows)
    names = [str(name) for name in rng.permutation(30)[:m]]
    return scores, np.array(rows), names


def measure(scores, rows, names, **options):
    found = ranked.judged(rows, *scores.shape)
    placed = ranked.places(lambda queries: scores[queries], found, ranked.name_order(names), **options)
    return found, placed


@settings(deadline=None, max_examples=150)
@given(tasks(), st.integers(1, 12), st.integers(1, 40))
def test_every_metric_of_every_query_is_that_of_the_walk_down_its_list(task, k, entries):
    scores, rows, names = task
    found, placed = measure(scores, rows, names, block_entries=entries)
    for place, against in zip(placed, (False, True), strict=True):
        values = ranked.per_query(place, found, k=k, ks=KS)
        for i, query in enumerate(found.queries):
            relevant = {int(c): int(grade) for q, c, grade in rows if q == query}
            order = oracle.ordered(scores[query].tolist(), names, relevant if against else None)
            assert {name: value[i] for name, value in values.items()} == pytest.approx(oracle.list_metrics(order, relevant, k, KS))


@settings(deadline=None, max_examples=50)
@given(tasks())
def test_pessimistic_is_the_worst_of_all_orders_of_ties(task):
    scores, rows, names = task
    found, placed = measure(scores[:, :5], rows[rows[:, 1] < 5] if (rows[:, 1] < 5).any() else np.array([[0, 0, 1]]), names[:5])
    values = ranked.per_query(placed.pessimistic, found, k=3, ks=(1, 2))
    for i, query in enumerate(found.queries):
        own = found.query == i
        relevant = dict(zip(found.candidate[own].tolist(), found.grade[own].tolist(), strict=True))
        row = scores[query, :5]
        orders = [o for o in itertools.permutations(range(len(row))) if all(row[a] >= row[b] for a, b in itertools.pairwise(o))]
        every = [oracle.list_metrics(order, relevant, 3, (1, 2)) for order in orders]
        assert {name: value[i] for name, value in values.items()} == pytest.approx({name: min(m[name] for m in every) for name in every[0]})


def test_golden_values_of_trec_eval():
    """Gains 3, 2, 1 in the order none, 1, 2, 3; printed by pytrec_eval 0.5."""
    found, placed = measure(np.array([[0.1, 0.2, 0.3, 0.4]]), np.array([[0, 0, 3], [0, 1, 2], [0, 2, 1]]), "abcz")
    assert ranked.per_query(placed.reference, found, k=10, ks=())["ndcg@10"][0] == pytest.approx(0.6138273133441086, abs=1e-12)
    for relevant, expected in ((0, 0.5), (1, 1.0)):  # two tie: the later name comes first
        found, placed = measure(np.array([[0.5, 0.5]]), np.array([[0, relevant]]), "ab")
        assert ranked.per_query(placed.reference, found, k=10, ks=())["mrr@10"][0] == expected
        assert ranked.per_query(placed.pessimistic, found, k=10, ks=())["mrr@10"][0] == 0.5


def test_scores_tie_in_float32():
    for difference, places in ((1e-9, [1, 1]), (1e-7, [0, 0])):
        found, placed = measure(np.array([[0.5 + difference, 0.5]]), np.array([[0, 0]]), "ab")
        assert [placed.reference[0], placed.pessimistic[0]] == places


def test_candidates_that_are_not_relevant_below_the_last_relevant_change_nothing():
    rng = np.random.default_rng(0)
    scores, rows = rng.random((6, 9)), np.array([(q, c) for q in range(6) for c in (q, q + 1)])
    more = np.concatenate([scores, scores.min(axis=1, keepdims=True) - rng.random((6, 4))], axis=1)
    for a, b in zip(measure(scores, rows, range(9))[1], measure(more, rows, range(13))[1], strict=True):
        np.testing.assert_array_equal(a, b)
    monotone = measure(np.exp2(np.round(scores, 3)), rows, range(9))[1], measure(np.round(scores, 3), rows, range(9))[1]
    np.testing.assert_array_equal(monotone[0].reference, monotone[1].reference)


def test_queries_without_judgements_are_left_out_and_those_without_relevant_score_nothing():
    scores = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9]])
    found, placed = measure(scores, np.array([[0, 0, 1], [2, 0, 0]]), "ab")
    assert found.queries.tolist() == [0, 2]
    assert ranked.summary(found, placed, k=10, ks=(1,))["mrr@10"] == 0.5


@pytest.mark.parametrize("candidates, k", [(3, 10), (6, 2), (6, 10)])
def test_chance_is_the_mean_over_all_orders(candidates, k):
    rows = np.array([[0, 0, 1], [1, 0, 1], [1, 2, 1], [2, 0, 0]])
    expected = []
    for relevant in ({0: 1}, {0: 1, 2: 1}, {}):
        every = [oracle.list_metrics(order, relevant, k, ())[f"mrr@{k}"] for order in itertools.permutations(range(candidates))]
        expected.append(np.mean(every))
    assert ranked.mrr_chance(ranked.judged(rows, 3, candidates), k) == pytest.approx(np.mean(expected))


@pytest.mark.parametrize(
    "relevant, message",
    [
        (np.zeros((0, 2), int), "at least one row"),
        (np.array([[0, 0, 0.5]]), "they are integers"),
        (np.array([0, 1]), r"shape \(2,\)"),
        (np.array([[0, 7]]), "outside 2 queries x 3 candidates"),
        (np.array([[-1, 0]]), "outside 2 queries x 3 candidates"),
        (np.array([[0, 1, 1], [0, 1, 2]]), "judged twice"),
    ],
)
def test_judgements_that_do_not_fit_are_refused(relevant, message):
    with pytest.raises(ValueError, match=message):
        ranked.judged(relevant, 2, 3)


def test_nan_and_doubled_names_are_refused():
    with pytest.raises(ValueError, match="queries 0 to 1 hold NaN"):
        measure(np.array([[0.1, np.nan], [0.1, 0.2]]), np.array([[0, 0], [1, 0]]), "ab")
    with pytest.raises(ValueError, match="share an id"):
        ranked.name_order(["a", "b", "a"])


class Texts:
    def __init__(self, queries, corpus, relevant, **ids):
        self.task = RankingTask(queries, corpus, np.array(relevant), **ids)

    def ranking(self):
        return self.task


def of_letters(texts):
    """Which letters occur: unit rows."""
    rows = np.array([[letter in text.lower() for letter in "abcdefghijklmnopqrstuvwxyz "] for text in texts], float)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


DATA = Texts(
    ["read a file", "zip two lists", "the hash of it", "no word of it is there"],
    ["with open(path) as fileObject:\n    return fileObject.read()", "return list(zip(a, b))", "return sha(x).hexdigest()", "pass " * 200],
    [[0, 0], [1, 1], [2, 2], [3, 0]],
)
ENCODE = toys.Encoders(query=of_letters, passage=of_letters)


def test_the_control_stands_beside_the_model_in_every_metric():
    values = ranking(ENCODE, DATA, controls=("bm25",)).metrics
    names = {name.removeprefix("bm25/") for name in values if name.startswith("bm25/")}
    assert names == {name for name in values if not name.startswith(("bm25/", "count/")) and not name.endswith("_chance")}
    assert values["bm25/mrr@10"] >= 0.5  # two of four share words with their answer
    assert "bm25/mrr@10" not in ranking(ENCODE, DATA).metrics


def test_bm25_adds_no_lines_to_a_log(caplog):
    with caplog.at_level("DEBUG"):  # of the root alone, as a command sets it
        bm25.bm25(["pear"], ["apple", "pear tree"])(np.arange(1))
    assert [record for record in caplog.records if record.name == "bm25s"] == []


def test_bm25_by_the_formula():
    """Lucene's form: idf = ln(1 + (N - n + 0.5) / (n + 0.5)), tf / (tf + k1 (1 - b + b length / mean length))."""
    corpus = ["apple pear apple", "pear plum", "cherry"]
    words = [text.split() for text in corpus]
    mean = sum(map(len, words)) / len(words)
    score = bm25.bm25(["pear apple", "kiwi", "apple apple"], corpus)(np.arange(3))

    def by_hand(query, document):
        total = 0.0
        for word in query:
            n, tf = sum(word in other for other in words), document.count(word)
            idf = math.log(1 + (len(words) - n + 0.5) / (n + 0.5))
            total += idf * tf / (tf + 1.5 * (1 - 0.75 + 0.75 * len(document) / mean)) if tf else 0.0
        return total

    expected = [[by_hand(query, document) for document in words] for query in (["pear", "apple"], [], ["apple", "apple"])]
    np.testing.assert_allclose(score, expected, rtol=1e-5)


def test_identifiers_are_split_and_stop_words_dropped():
    assert bm25.words("the readLines of HTTPResponse2, read_lines") == [
        "read", "lines", "readlines", "http", "response", "2", "httpresponse2", "read", "lines", "read_lines",
    ]  # fmt: skip
    assert bm25.words("été x") == ["été", "x"] and bm25.words("... ") == []


def test_choices_that_are_none_are_named():
    with pytest.raises(ConfigError, match=r"config\.evals\.<label>\.options\.controls is 'bm52'.*'bm25'"):
        ranking(ENCODE, DATA, controls=("bm52",))
    with pytest.raises(ConfigError, match="bm25 ranks texts alone"):
        ranking(toys.perfect(toys.Toy()), toys.Toy(), query="image", passage="text", controls=("bm25",))
    with pytest.raises(ValueError, match="'mrr@5' is not among"):
        ranking(ENCODE, DATA, primary="mrr@5")


def test_the_gallery_shows_what_was_measured():
    rng = np.random.default_rng(0)
    queries, corpus = [f"q {i}" for i in range(40)], [f"p {i} " + "x" * 500 for i in range(30)]
    rows = {"q": rng.normal(size=(40, 4)), "p": rng.normal(size=(30, 4))}
    read = lambda side: lambda texts: rows[side][[int(text.split()[1]) for text in texts]]
    encode = toys.Encoders(query=read("q"), passage=read("p"))
    data = Texts(queries, corpus, [(i, i % 30) for i in range(40)])
    shown = ranking(encode, data, gallery_queries=6).gallery
    assert shown["ranked_kinds"].tolist() == ["drawn"] * 6 + ["worst"] * 6 and len(set(shown["ranked_queries"].tolist())) == 12
    assert all(len(text) == gallery.PASSAGE_LENGTH for text in shown["ranked_top_texts"].ravel())
    unit = {side: values / np.linalg.norm(values, axis=1, keepdims=True) for side, values in rows.items()}
    for i, query in enumerate(shown["ranked_queries"]):
        number = int(query.split()[1])
        cosine = unit["p"] @ unit["q"][number]
        best = np.argsort(-cosine)[:5]
        assert [int(text.split()[1]) for text in shown["ranked_top_texts"][i]] == best.tolist()
        np.testing.assert_allclose(shown["ranked_top_scores"][i], cosine[best], rtol=1e-5)
        assert shown["ranked_top_right"][i].tolist() == (best == number % 30).tolist()
        assert shown["ranked_places"][i] == np.sum(cosine > cosine[number % 30])
        assert int(shown["ranked_answers"][i].split()[1]) == number % 30
    assert min(shown["ranked_places"][6:]) >= np.median(shown["ranked_places"][:6])
    assert ranking(encode, data, gallery_queries=0).gallery == {}


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_places_of_embeddings_are_those_of_their_scores(n, m, seed):
    """Few distinct directions, so that ties are common; lengths do not count; up to three relevant, some of grade 0."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(3, 4))
    queries, corpus = (directions[rng.integers(0, 3, size)] * rng.uniform(0.5, 2, (size, 1)) for size in (n, m))
    rows = np.array([(q, c, rng.integers(0, 3)) for q in range(n) if q == 0 or rng.random() < 0.8 for c in rng.permutation(m)[:3]])
    found, tie = ranked.judged(rows, n, m), ranked.name_order(range(m))
    expected = ranked.places(lambda some: metrics.cosines(queries[some], corpus), found, tie)
    for one, other in zip(ranked.embedded_places(queries[found.queries], corpus, found, tie, query_rows=8), expected, strict=True):
        assert one.tolist() == other.tolist()
