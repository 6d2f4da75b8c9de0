"""How hard the texts of a set are in themselves: a control for comparing scores of sets that differ in more than their domain."""

import ast
import io
import math
import re
import tokenize
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from core.config import ConfigError, choose
from evals.bag_of_words import WORD
from evals.evaluation import Evaluation
from evals.linear_probe import linear_probe

# The texts of a set, by the method that has them.
TEXTS = {
    "bitext": lambda task: [*task.sources],
    "labelled": lambda task: [*task.values],
    "pairs": lambda task: [*task.first, *task.second],
    "probe": lambda task: [*task.train.values, *task.test.values],
    "ranking": lambda task: [*task.queries, *task.corpus],
    "retrieval": lambda task: [*task.texts],
    "similarity": lambda task: [*task.first, *task.second],
}
SPACE = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT, tokenize.ENDMARKER)


def complexity(
    encode: Mapping[str, Callable], data, *, view: str = "text", task: str = "probe", words: int = 10_000, code: bool = False, seed: int = 0
) -> Evaluation:
    """Entropy of words, readability, nesting of code, and what a fixed probe gets wrong.

    The paper's error rate of a chat model is here that of logistic regression on the embeddings (`linear_probe` without its sweep), and
    its dependency distance, which needs a parser of sentences, is here that of syntax trees of code.

    Args:
        encode: functions of the views; used for `probe` alone.
        data: a set with the method `task`.
        view: that reads its values, where they are learnt from.
        task: the method whose texts are looked at: bitext, labelled, pairs, probe, ranking, retrieval or similarity.
        words: of texts in a drawn order that entropy is taken of, which grows with their number: compare sets at equal `count/words`.
        code: texts are Python, so their trees are measured instead of their readability.
        seed: of the order.

    Returns:
        Under `complexity/`, where neither more nor less is better: `entropy` in bits a word (words in lower case), `fog`, the Gunning
        fog index (NaN without a word), or with `code` `tree_distance` (NaN where nothing parses), and for `probe` `probe_error`; then
        `accuracy@1`, which is the primary metric there and the entropy elsewhere; and `count/{texts,words,unparsed}`.

    Raises:
        ConfigError: an unknown task, or no word to be taken.
        ValueError: values that are no texts, no word in any, or what a linear probe refuses.

    Source: Tang and Yang 2024, arXiv:2409.18511; Gunning 1952.
    """
    if words < 1:
        raise ConfigError(f"config.evals.<label>.options.words is {words}; set it to 1 or more.")
    texts = choose(TEXTS, task, "config.evals.<label>.options.task")(getattr(data, task)())
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{task}() of this set has values that are no texts; complexity is measured of texts alone.")
    order = np.random.default_rng(seed).permutation(len(texts))
    drawn = [word for i in order for word in WORD.findall(texts[i].lower())][:words]
    if not drawn:
        raise ValueError(f"none of {len(texts)} texts has a word.")
    values = {"complexity/entropy": entropy(drawn), "count/texts": float(len(texts)), "count/words": float(len(drawn))}
    if code:
        distances = [tree_distance(text) for text in texts]
        known = [one for one in distances if one is not None]
        values |= {
            "complexity/tree_distance": float(np.mean(known)) if known else math.nan,
            "count/unparsed": float(len(texts) - len(known)),
        }
    else:
        values["complexity/fog"] = fog(texts)
    if task != "probe":
        return Evaluation("complexity/entropy", values, len(texts))
    probe = linear_probe(encode, data, view=view, sweep=False)
    accuracy = probe.metrics["accuracy@1"]
    return Evaluation(
        "accuracy@1", values | {"accuracy@1": accuracy, "complexity/probe_error": 1 - accuracy}, probe.count, items=probe.items
    )


def entropy(tokens: Sequence[str]) -> float:
    """-sum p log2 p over the shares of the distinct tokens, in bits: 0 for one repeated, log2 V for V equally frequent ones."""
    share = np.array(list(Counter(tokens).values()), np.float64) / len(tokens)
    return float(-np.sum(share * np.log2(share)) + 0.0)  # not -0


def fog(texts: Sequence[str]) -> float:
    """0.4 (words / sentences + 100 * share of words with three syllables or more); NaN without a word.

    Words are runs of letters and apostrophes; a sentence ends at . ! or ? or with its text.
    """
    sentences = [found for text in texts for part in re.split(r"[.!?]+", text) if (found := re.findall(r"[^\W\d_][^\W\d_'’]*", part))]
    words = [word for sentence in sentences for word in sentence]
    if not words:
        return math.nan
    return 0.4 * (len(words) / len(sentences) + 100 * sum(syllables(word) >= 3 for word in words) / len(words))


def syllables(word: str) -> int:
    """Groups of vowels, a final e that no l comes before left out; 1 at least. Meant for English."""
    word = word.lower()
    groups = len(re.findall(r"[aeiouyà-öø-ÿ]+", word))
    silent = re.search(r"[^aeiouyl]e$", word) is not None
    return max(groups - silent, 1)


def dependency_distance(places: Sequence[int], heads: Sequence[int | None]) -> float | None:
    """Mean distance between the places of things and those of their heads; None where nothing has a head.

    Args:
        places: of each thing in the text.
        heads: index of each one's head; None for a root, which is left out.
    """
    distances = [abs(place - places[head]) for place, head in zip(places, heads, strict=True) if head is not None]
    return sum(distances) / len(distances) if distances else None


def tree_distance(source: str) -> float | None:
    """Mean distance in tokens between the first token of a syntax node and that of its parent; None where nothing is nested or parses."""
    try:
        tree = ast.parse(source)
        tokens = [token.start for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type not in SPACE]
    except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError):
        return None
    lines, places, heads = source.splitlines(keepends=True), [], []
    for node, head in _nodes(tree):
        column = len(lines[node.lineno - 1].encode()[: node.col_offset].decode())  # ast counts bytes, tokenize letters
        places.append(bisect_right(tokens, (node.lineno, column)) - 1)
        heads.append(head)
    return dependency_distance(places, heads)


def _nodes(tree: ast.AST) -> Iterator[tuple[ast.AST, int | None]]:
    """Nodes that have a place, with the number of the nearest one above that has."""
    stack, count = [(tree, None)], 0
    while stack:
        node, head = stack.pop()
        if hasattr(node, "lineno"):
            yield node, head
            head, count = count, count + 1
        stack += [(child, head) for child in ast.iter_child_nodes(node)]
