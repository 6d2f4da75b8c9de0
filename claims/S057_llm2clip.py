"""S057, LLM2CLIP: does a frozen model of language make a good text side for images, and a better one once it tells descriptions apart?

Retrieval of the names of characters that training never shows by their images. The model of language is all-MiniLM-L6-v2. Tuned, it has
first learned, by low-rank adapters, which name belongs to which words of a character's decomposition and category ("uppercase letter:
latin capital letter a, combining caron"), on the 2,462 characters of training that have a decomposition; there is one such teacher, not
one for each seed. Either one's vectors are computed once and go through the paper's residual adapter, or through one linear map. Names
are a small language, so the tower from scratch may win. `captions_<teacher>` is how often an unseen character's words find its name.
"""

import json
import pathlib
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

import retrieval
from claims import code_search
from claims.claim import Claim, Contrast
from configs import common
from evals import metrics
from input_pipeline import stored
from input_pipeline.sources.glyphs import Glyphs
from training import fit

RUNS = {  # teacher and pooling
    "scratch": ("", "mean"),
    "linear": ("raw", "mean"),
    "adapter": ("raw", "adapted"),
    "tuned": ("tuned", "adapted"),
    "tuned_linear": ("tuned", "mean"),
}
RATES = {"mean": 3e-3, "adapted": 1e-3}  # of both, the better with the raw teacher on seed 100; not tried from scratch
SIZE, WIDTH, TEACHER = 24, 96, 384
KINDS = {"C": "other", "L": "letter", "M": "mark", "N": "number", "P": "punctuation", "S": "symbol", "Z": "separator"}
CASES = {"Lu": "uppercase letter", "Ll": "lowercase letter", "Lt": "titlecase letter", "Lm": "modifier letter", "Nd": "digit"}


def get_config(arg: str = "") -> ConfigDict:
    """Of one run, a name in `RUNS`."""
    arg = common.parse_arg(arg, run="tuned", folder="prepared", quick=False)
    config = common.base()
    config.data.global_batch = 128
    config.data.sources = dict(main=dict(name="glyphs", weight=1.0, options=dict(split="train", size=SIZE)))
    moved = dict(name="augment", options=dict(shift=0.08, scale=0.1, rotate=6.0, noise=0.04, keep_inside=True))
    image = dict(image_size=SIZE, channels=1, widths=(24, 48, 96), blocks=(1, 1, 1), embed_dim=WIDTH)
    teacher, pooling = RUNS[arg.run]
    if teacher:
        read = dict(name="stored", options=dict(path=f"{arg.folder}/{teacher}"))
        text = dict(name="vectors", options=dict(width=TEACHER, pooling=pooling, embed_dim=WIDTH))
    else:
        config.data.tokenizer = dict(name="hf", options=dict(path=code_search.minilm()))
        read = dict(name="tokenize", options=dict(length=16))
        options = dict(vocab_size=30_522, length=16, width=WIDTH, layers=1, heads=4, causal=False, pooling=pooling, embed_dim=WIDTH)
        text = dict(name="text", options=options)
    config.data.transforms = dict(image=moved, text=read)
    config.model.towers = dict(image=dict(name="resnet", options=image), text=text)
    config.model.views = dict(image="image", text="text")
    inputs = dict(zq="z_image", zp="z_text", id="id", alias="pixel_id")
    config.losses.main = dict(name="infonce", inputs=inputs, weight=1.0, options={})
    config.optimizer.learning_rate = RATES[pooling]
    config.optimizer.warmup_steps = 20
    config.train.steps = 12 if arg.quick else 150
    config.checkpoint.every_steps = config.train.steps
    config.checkpoint.keep_last = 1
    return config.lock()


def teacher_config(pairs: pathlib.Path, quick: bool) -> ConfigDict:
    """Of the tuned teacher: rank, rate, batch, temperature and its one epoch are the paper's; texts are far fewer."""
    config = common.base()
    config.data.global_batch = 64
    config.data.sources = dict(main=dict(name="pairs", weight=1.0, options=dict(files=(str(pairs),), id="positive")))
    path = code_search.minilm()
    config.data.tokenizer = dict(name="hf", options=dict(path=path))
    config.data.transforms = {view: dict(name="tokenize", options=dict(length=length)) for view, length in (("query", 16), ("passage", 24))}
    start = dict(format="sentence_transformers", path=path, keep=())
    config.model.towers = dict(text=dict(name="bert", options={}, init=start))
    config.model.views = dict(query="text", passage="text")
    config.model.adapters.text = dict(name="lora", patterns=("attention/", "mlp/"), train=(), options=dict(rank=16))
    config.model.temperature_init = 0.02
    config.optimizer.freeze = ("^log_logit_scale$",)
    config.optimizer.learning_rate = 2e-4
    config.optimizer.warmup_steps = 10
    config.losses.main = dict(name="infonce", inputs=dict(zq="z_query", zp="z_passage", id="id"), weight=1.0, options={})
    config.train.steps = 5 if quick else 38
    config.checkpoint.every_steps = config.train.steps
    return config.lock()


def prepare(folder: pathlib.Path, quick: bool) -> None:
    """Tunes the teacher; writes each teacher's vectors of all names, and for each unseen character whether its words find its name."""
    seen, unseen = ([*Glyphs(split=split, size=SIZE).texts()] for split in ("train", "unseen"))
    pairs = folder / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(dict(query=name, positive=words)) + "\n" for name in seen if (words := described(name))))
    tuned = fit(teacher_config(pairs, quick), folder / "teacher").workdir
    for teacher, path, view in (("raw", code_search.minilm(), "text"), ("tuned", tuned, "query")):
        model = retrieval.load(path)
        encode = lambda texts, model=model, view=view: model.encode(texts, view)
        stored.write(folder / teacher, [*seen, *unseen], encode([*seen, *unseen]), model.fingerprint())
        np.save(folder / teacher / "found.npy", found_by_words(encode, unseen))


def found_by_words(encode, names: Sequence[str]) -> np.ndarray:
    """Whether the words of a name's character are nearest to that name, or to one that has the same words, for each that has words."""
    words = {name: described(name) for name in names}
    asked = [name for name in names if words[name]]
    nearest = (encode([words[name] for name in asked]) @ encode(names).T).argmax(1)
    return np.array([words[names[j]] == words[name] for j, name in zip(nearest, asked, strict=True)], np.float64)


def described(name: str) -> str:
    """A character in the words of its category and of what it decomposes into; empty for one that does not."""
    character = unicodedata.lookup(name.upper())
    parts = unicodedata.decomposition(character).split()
    category = unicodedata.category(character)
    said = [part[1:-1] if part.startswith("<") else unicodedata.name(chr(int(part, 16)), "").lower() for part in parts]
    return f"{CASES.get(category, KINDS[category[0]])}: {', '.join(filter(None, said))}" if parts else ""


def measure(workdirs: Mapping[str, pathlib.Path]) -> dict[str, np.ndarray]:
    """1 / rank of the first right name for each image of an unseen character, by run; and what the teachers say of words."""
    task, found = Glyphs(split="unseen", size=SIZE).retrieval(), {}
    for run, workdir in workdirs.items():
        model = retrieval.load(workdir)
        images, texts = model.encode(task.images, "image"), model.encode(task.texts, "text")
        found[run] = 1 / (1 + metrics.ranks(images, texts, np.asarray(task.relevant)).reference)
        if teacher := RUNS[run][0]:
            kept = pathlib.Path(model.config.data.transforms.text.options.path)
            found[f"captions_{teacher}"] = np.load(kept / "found.npy", allow_pickle=False)
    return found


CLAIM = Claim(
    title="LLM2CLIP",
    says="Behind a residual adapter, a frozen MiniLM that was first tuned to tell characters' descriptions apart makes a better text side "
    "for their images than one that was not.",
    file=pathlib.Path(__file__),
    runs=tuple(RUNS),
    measure=measure,
    metric="img2txt MRR",
    contrasts=(
        Contrast("tuned", "adapter", 0.02),
        Contrast("adapter", "linear", 0.02),
        Contrast("tuned", "tuned_linear", 0.02),
        Contrast("tuned", "scratch", 0.02),
        Contrast("linear", "scratch", 0.02),
    ),
    prepare=prepare,
)
