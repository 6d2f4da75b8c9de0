"""X03, SimCSE: is a second pass under other dropout the signal, or would any two equal passes do?

Docstrings alone train a small encoder from random init; then the first half of the words of a docstring finds its second half, in packages
that training never saw. Beside SimCSE: nothing learned, two passes without dropout, and one pass under dropout as its own positive.

Chosen here: the mean over tokens, and no layer on top that training alone has. What equal passes do to alignment is not measured.
"""

import pathlib
import types
from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

import retrieval
from claims.claim import Claim, Contrast
from configs import common
from evals.ranking import ranking
from input_pipeline.sources.docstrings import Docstrings
from input_pipeline.tasks import ranking_task

WIDTH, LENGTH = 128, 32
LEAST_WORDS = 8  # of a docstring that is cut in two


def get_config(arg: str = "") -> ConfigDict:
    """Of one run: `untrained`, `still` (no dropout), `same` (one mask) or `simcse`."""
    arg = common.parse_arg(arg, run="simcse", quick=False)
    config = common.base()
    config.data.global_batch = 128
    config.data.sources = dict(main=dict(name="docstrings", weight=1.0, options={}))
    config.data.tokenizer = dict(name="bpe", options=dict(vocab_size=2048))
    read = dict(name="tokenize", options=dict(length=LENGTH))
    unread = dict(name="tokenize", options=dict(length=2))  # no view reads the functions, but a batch holds no strings
    config.data.transforms = dict(query=read, again=read, passage=unread)
    config.data.copies.again = "query"
    text = dict(
        vocab_size=2048, length=LENGTH, width=WIDTH, layers=1, heads=4, causal=False, pooling="mean", embed_dim=WIDTH,
        dropout=0.0 if arg.run == "still" else 0.1,
    )  # fmt: skip
    config.model.towers = dict(text=dict(name="text", options=text))
    config.model.views = dict(query="text", again="text")
    config.model.temperature_init = 0.05
    # One pass as its own positive has one mask by construction.
    inputs = dict(zq="z_query", zp="z_query" if arg.run == "same" else "z_again", id="id")
    config.losses.main = dict(name="infonce", inputs=inputs, weight=1.0, options=dict(symmetric=False, positives="exclude"))
    config.optimizer.freeze = ("^log_logit_scale$",)
    config.optimizer.learning_rate = 0.0 if arg.run == "untrained" else 1e-3
    config.optimizer.warmup_steps = 0 if arg.run == "untrained" else 20
    config.train.steps = (1 if arg.quick else 2) if arg.run == "untrained" else 40 if arg.quick else 250
    config.checkpoint.every_steps = config.train.steps
    config.checkpoint.keep_last = 1
    return config.lock()


def halves() -> types.SimpleNamespace:
    """Held-out docstrings cut in two, as a set that can be ranked."""
    texts = [text.split() for text in dict.fromkeys(Docstrings(split="test").ranking().queries)]
    pairs = [(" ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])) for words in texts if len(words) >= LEAST_WORDS]
    return types.SimpleNamespace(ranking=lambda: ranking_task(pairs))


def measure(workdirs: Mapping[str, pathlib.Path]) -> dict[str, np.ndarray]:
    """Reciprocal rank of each first half by arm, which is the run."""
    data, arms = halves(), {}
    for run, workdir in workdirs.items():
        model = retrieval.load(workdir)
        read = lambda texts, model=model: model.encode(texts, "query")
        arms[run] = ranking(dict(query=read, passage=read), data, gallery_queries=0).items
    return arms


CLAIM = Claim(
    title="SimCSE",
    says="Two passes under different dropout train an encoder of docstrings better than one pass as its own positive.",
    file=pathlib.Path(__file__),
    runs=("untrained", "still", "same", "simcse"),
    measure=measure,
    metric="MRR@10",
    contrasts=(
        Contrast("simcse", "same", 0.02),
        Contrast("simcse", "still", 0.02),
        Contrast("simcse", "untrained", 0.02),
        Contrast("same", "untrained", 0.02),
    ),
)
