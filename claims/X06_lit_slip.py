"""X06, SLIP and LiT: where few images have names, do more views of them help, and does a finished image tower better stand still?

Rendered characters; one in ten comes with its name, half of them without. Each batch holds as many images without names as named ones:
SLIP contrasts two moved views of every image, and no other loss sees those without names. LiT starts from an image tower that was
trained on that half of the characters as a classifier: a text of one token stands for each class, so that it knows no word of a name.
Names and images of the remaining characters are what is measured. All arms see the same pairs in the same order.

Chosen here: labels keep only equal pixels out of each other's negatives among views; none is cropped or flipped, they are turned a little
and have noise, where the card would change strokes as well; the projector has 512, 512 and 128 values and reads projected vectors.
"""

import pathlib
from collections.abc import Mapping

import numpy as np
import tokenizers
from ml_collections import ConfigDict

import retrieval
from claims.claim import Claim, Contrast
from claims.names import reciprocal_ranks
from configs import common
from input_pipeline.sources.glyphs import Glyphs
from input_pipeline.tokenize import train_bpe

SIZE, VOCAB = 24, 512
# Characters held out by `glyphs`, of 7,346: the first 3,650 never have a name here, those beyond 6,570 always do, and the rest is measured.
UNNAMED, UNPAIRED = 3650, 6570
EVERY = 6  # one in so many of the measured characters
PAIRED = dict(name="glyphs", weight=1.0, options=dict(split="train", size=SIZE, heldout=UNPAIRED), constants=dict(named=1.0))
IMAGES = dict(name="glyphs", weight=1.0, options=dict(split="unseen", size=SIZE, heldout=UNNAMED), constants=dict(named=0.0))
LABELS = dict(id="id", alias="pixel_id")


def get_config(arg: str = "") -> ConfigDict:
    """Of one run: `clip`, `slip`, `classifier`, or `unlocked` and `locked`, which start from the image tower of `first`."""
    arg = common.parse_arg(arg, run="clip", first="runs/classifier", folder="prepared", quick=False)
    config = common.base()
    config.data.global_batch = 192
    config.data.sources = dict(paired=PAIRED, images=IMAGES)
    config.data.tokenizer = dict(name="saved", options=dict(path=f"{arg.folder}/names"))
    moved = dict(name="augment", options=dict(shift=0.08, scale=0.1, rotate=6.0, noise=0.04, keep_inside=True))
    config.data.transforms = dict(image=moved, text=dict(name="tokenize", options=dict(length=16)))
    image = dict(image_size=SIZE, channels=1, widths=(24, 48, 96), blocks=(1, 1, 1), embed_dim=128)
    text = dict(vocab_size=VOCAB, length=16, width=128, layers=1, heads=4, causal=False, pooling="mean", embed_dim=128)
    config.model.towers = dict(image=dict(name="resnet", options=image), text=dict(name="text", options=text))
    config.model.views = dict(image="image", text="text")
    pair = dict(zq="z_image", zp="z_text", weight="named") | LABELS
    config.losses.main = dict(name="infonce", inputs=pair, weight=1.0, options={})
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_steps = 20
    config.train.steps = 20 if arg.quick else 150
    if arg.run == "classifier":
        _classifier(config, arg)
    elif arg.run == "slip":
        _slip(config, moved)
    elif arg.run != "clip":
        config.model.towers.image.init = dict(format="tandem", path=arg.first, keep=())
        config.optimizer.freeze = ("^towers_image/",) if arg.run == "locked" else ()
    config.checkpoint.every_steps = config.train.steps
    config.checkpoint.keep_last = 1
    return config.lock()


def _slip(config: ConfigDict, moved: Mapping) -> None:
    """Two more views of each image, through a head of their own."""
    for view in ("one", "two"):
        config.data.copies[view], config.data.transforms[view], config.model.views[view] = "image", moved, "image"
    config.model.heads.project = dict(name="projector", inputs=dict(one="z_one", two="z_two"), options=dict(widths=(512, 512, 128)))
    views = dict(zq="project_one", zp="project_two", id=None, alias="pixel_id")
    config.losses.views = dict(name="simclr", inputs=views, weight=1.0, options=dict(temperature=0.1))


def _classifier(config: ConfigDict, arg: ConfigDict) -> None:
    """Which character an image shows, out of those of its batch: the vector of a class is that of its only token."""
    config.data.sources = dict(images=IMAGES)
    config.losses.main.inputs.weight = None
    config.data.tokenizer = dict(name="hf", options=dict(path=f"{arg.folder}/classes", pad="<pad>"))
    config.data.transforms.text.options.length = 1
    table = dict(vocab_size=UNNAMED + 1, length=1, width=128, layers=0, causal=False, pooling="mean", embed_dim=128)
    config.model.towers.text = dict(name="text", options=table)
    config.train.steps = 30 if arg.quick else 300


def prepare(folder: pathlib.Path, quick: bool) -> None:
    """Writes the tokenizer of all runs, made of the names in pairs, and one that has a token for each character without a name."""
    (folder / "names").mkdir()
    train_bpe(Glyphs(**PAIRED["options"]).texts(), vocab_size=VOCAB).save(folder / "names")
    (folder / "classes").mkdir()
    tokens = {name: number for number, name in enumerate(["<pad>", *Glyphs(**IMAGES["options"]).texts()])}
    tokenizers.Tokenizer(tokenizers.models.WordLevel(tokens, unk_token="<pad>")).save(str(folder / "classes" / "tokenizer.json"))


def measure(workdirs: Mapping[str, pathlib.Path]) -> dict[str, np.ndarray]:
    """Reciprocal rank of the name of each image among the measured names, by run."""
    rest, seen = Glyphs(split="unseen", size=SIZE, heldout=UNPAIRED), Glyphs(**IMAGES["options"])
    taken = set(seen.texts())
    names = [name for name in rest.texts() if name not in taken][::EVERY]
    number = {name: i for i, name in enumerate(names)}
    records = [record for record in map(rest.__getitem__, range(len(rest))) if record["text"] in number]
    own = np.array([number[record["text"]] for record in records])
    arms = {}
    for run in (run for run in workdirs if run != "classifier"):
        model = retrieval.load(workdirs[run])
        images = model.encode([record["image"] for record in records], "image")
        arms[run] = reciprocal_ranks(rest, images, model.encode(names, "text"), names, own)
    return arms


CLAIM = Claim(
    title="SLIP and LiT",
    says="With one character in ten for training, two more views of each image make a model that names unseen characters better.",
    file=pathlib.Path(__file__),
    runs=("clip", "slip", "classifier", "unlocked", "locked"),
    measure=measure,
    metric="MRR of names",
    contrasts=(
        Contrast("slip", "clip", 0.02),
        Contrast("locked", "unlocked", 0.02),
        Contrast("unlocked", "clip", 0.02),
        Contrast("locked", "clip", 0.02),
    ),
    first=dict(unlocked="classifier", locked="classifier"),
    prepare=prepare,
)
