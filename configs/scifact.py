"""Scientific claims and the abstracts that speak of them, from random init: SciFact, ranked as BEIR does.

    unzip scifact.zip corpus_train.csv
    python -c "import json; from input_pipeline.local_text import SciFact
    train, asked = (SciFact(path='FOLDER', split=split).ranking() for split in ('train', 'validation'))
    open('claims.jsonl', 'w').writelines(json.dumps(dict(query=train.queries[q], positive=train.corpus[c])) + chr(10)
    for q, c, _ in train.relevant if c not in asked.relevant[:, 1])"
    python -m launch.train --config=configs/scifact.py:path=FOLDER --workdir=runs/scifact

FOLDER holds `scifact.zip` and the two files. Training mixes claims with the titles of all abstracts, two of these for one claim; 300 other
claims rank all 5,183 abstracts, beside BM25. Of the 919 judged claims of the training split 624 are learned from: the abstracts of the rest
are answers of the evaluation, where three claims in ten say nearly what a training claim says, or its opposite. With `smoke` and no path,
functions and their docstrings stand in.

Last measured (2026-11-21, 8980b82, two shared cores at 86 GFLOP/s, one seed, 4 min 40 s): nDCG@10 0.452, untrained 0.247, BM25 0.681; with
all 919 claims 0.744, most of which is memory.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    arg = common.parse_arg(arg, path="", steps=300, smoke=False)
    config = common.base()
    toy = arg.smoke and not arg.path
    vocab_size, length, width = 320 if toy else 8192, 192, 32 if toy else 512
    config.data.global_batch = 64 if arg.smoke else 256
    pairs = lambda name, **columns: dict(name="pairs", options=dict(files=(f"{arg.path}/{name}",), id="positive") | columns)
    titles = pairs("corpus_train.csv", query="title", positive="abstract", id="title")
    sources = dict(main=_stand_in()) if toy else dict(claims=pairs("claims.jsonl"), titles=titles)
    weights = dict(main=1.0, claims=1.0, titles=2.0)
    config.data.sources = {label: entry | dict(weight=weights[label]) for label, entry in sources.items()}
    config.data.tokenizer = dict(name="bpe", options=dict(vocab_size=vocab_size))
    tokens = lambda most: dict(name="tokenize", options=dict(length=most))
    config.data.transforms = dict(query=tokens(48), passage=tokens(length))
    # No blocks: 6,000 pairs are soon learned by heart, and words that both texts share are most of what there is to find.
    text = dict(
        vocab_size=vocab_size, length=length, width=width, layers=0, heads=4, causal=False, pooling="mean", embed_dim=width, dropout=0.3
    )  # fmt: skip
    config.model.towers = dict(text=dict(name="text", options=text))
    config.model.views = dict(query="text", passage="text")
    config.model.temperature_init = 0.05
    inputs = dict(zq="z_query", zp="z_passage", id="id")
    config.losses.main = dict(name="infonce", inputs=inputs, weight=1.0, options=dict(symmetric=True))
    config.optimizer.learning_rate = 2e-3
    config.optimizer.ema_decay = 0.98
    config.train.steps = 20 if arg.smoke else arg.steps
    every = config.checkpoint.every_steps = 10 if arg.smoke else 100
    config.checkpoint.best = "validation"
    data = _stand_in() if toy else dict(name="scifact", options=dict(path=arg.path))
    options = dict(primary="mrr@10" if toy else "ndcg@10", controls=() if toy else ("bm25",))
    config.evals.validation = dict(name="ranking", every_steps=every, data=data, options=options)
    return config.lock()


def _stand_in() -> dict:
    return dict(name="docstrings", options=dict(split="test"))
