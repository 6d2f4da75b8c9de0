"""Golden vectors: inputs of a few texts and images with what a model makes of them, and the comparison with a folder read back."""

import json
import logging
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from core.config import ConfigError
from input_pipeline.transforms import patches
from interop import inputs
from interop.imported import Imported, section
from models import dual
from models.layers import unit

log = logging.getLogger(__name__)

BOUND = 1e-5  # largest difference of a value of a unit vector, in float32
TEXTS = (
    "A photo of a cat.",
    "",
    "Zwölf Boxkämpfer jagen Viktor quer über den Sylter Deich — 北京, naïve café!",
    "def f(x):\n    return x ** 2\n",
)


def length(source: Imported) -> int:
    """Tokens at most that texts had in training."""
    options = source.model["towers"]["text"]["options"]
    stated = [t["options"]["length"] for t in source.transforms.values() if t["name"] == "tokenize" and "length" in t["options"]]
    return min([options["length"], *stated[:1]])


def vectors(source: Imported, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Inputs and the vectors that the source makes of them, for whoever opens the folder."""
    made, towers = {}, source.model["towers"]
    if "image" in towers:
        made |= _images(source)
        made["image_vectors"] = encode(source, "image", made["images"], made.get("image_mask"))
    if "text" in towers:
        tokens = length(source)
        if source.tokenizer is None:
            rows = np.random.default_rng(0).integers(1, towers["text"]["options"]["vocab_size"], (3, tokens))
            made["ids"], made["mask"] = rows.astype(np.int32), np.ones((3, tokens), bool)
        else:
            made["texts"] = np.array(texts)
            made["ids"], made["mask"] = source.tokenizer(texts, tokens)
        made["text_vectors"] = encode(source, "text", made["ids"], made["mask"])
    return made


def _images(source: Imported) -> dict[str, np.ndarray]:
    """Noise of the tower's size, or of several shapes as patches with a mask."""
    options, rng = source.model["towers"]["image"]["options"], np.random.default_rng(0)
    if "image_size" in options:
        return {"images": rng.integers(0, 256, (3, options["image_size"], options["image_size"], options["channels"]), dtype=np.uint8)}
    shapes = [(3 * options["patch_size"], width, options["channels"]) for width in (40, 90, 300)]
    cut = inputs.transforms(source.model)["image"]["options"]
    made = patches([rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes], None, None, **cut)
    return {"images": made[""], "image_mask": made["_mask"]}


def encode(source: Imported, label: str, x: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Unit vectors of a tower, in float32 whatever the model computes in."""
    entry = source.model["towers"][label]
    tower = dual.build(ConfigDict({**section({label: (entry["name"], entry["options"] | {"dtype": "float32"})})})).towers[label]
    run = jax.jit(lambda params, x, mask: unit(tower.apply({"params": params}, x, mask)["embedding"]))
    return np.asarray(run(source.params[f"towers_{label}"], x, mask))


def check(back: Imported, golden: Mapping[str, np.ndarray]) -> None:
    """Refuses a folder that reads texts as other ids, or gives other vectors, than the source."""
    found = {}
    if "texts" in golden:
        ids, mask = back.tokenizer(list(golden["texts"]), golden["ids"].shape[1])
        kept = np.where(golden["mask"], golden["ids"], 0)
        if not np.array_equal(mask, golden["mask"]) or not np.array_equal(np.where(mask, ids, 0), kept):
            raise ConfigError("the tokenizer in the new folder reads the golden texts as other ids; nothing was exported.")
        found["text"] = np.abs(encode(back, "text", ids, mask) - golden["text_vectors"]).max()
    elif "ids" in golden:
        found["text"] = np.abs(encode(back, "text", golden["ids"], golden["mask"]) - golden["text_vectors"]).max()
    if "images" in golden:
        found["image"] = np.abs(encode(back, "image", golden["images"], golden.get("image_mask")) - golden["image_vectors"]).max()
    log.info("read back: %s", ", ".join(f"{label} vectors differ by at most {value:.1e}" for label, value in found.items()))
    if not all(value <= BOUND for value in found.values()):  # NaN is not
        raise ConfigError(f"vectors of the new folder differ from the source's by {json.dumps({k: float(v) for k, v in found.items()})}, "
                          f"more than {BOUND}; nothing was exported.")  # fmt: skip
