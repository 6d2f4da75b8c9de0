"""Examples per second of a small CLIP in training: Tandem's compiled step beside open_clip's, from the same weights, in turns.

    python -m benchmarks.train_step

Both arms make the same updates: their first losses must agree. Tandem's step takes bytes and scales pixels itself, places every batch,
and computes the metrics it logs; open_clip gets floats that are already normalised. A round is a few steps of one arm.
Reached: 1.00 times open_clip's examples/s and 1.03 times by processor seconds, from 0.60 (results/train_step.json has the latest).

What was tried, as processor milliseconds of a step (2026-11-21, two shared cores of an AMD EPYC, JAX 0.10.2; other work ran beside, so
trust differences of 5% or more). Matmuls alone take 842, forward and to inputs at 101-108 GFLOP/s a core, to kernels at 81-98. Each line
adds to the one before; open_clip took 1,208.

    2,047  rows on two axes, GELU by erfc, queries, keys and values moved in one transposition
    1,573  linear layers with all rows on one axis: no transposed copies for the kernels' gradients
    1,518  GELU by erf, its derivative written by hand (kept: by erf, the derivative computed again from the input)
    1,467  queries, keys and values moved one by one
    1,366  bias and GELU computed again from the product alone (not kept: an activation inside the linear layer hides the layer's output)
    1,252  LayerNorm with its gradient in closed form
    1,270  attention with heads left where they are (no help)

XLA's library fusions for matmuls alone, or none (`--xla_cpu_experimental_ynn_fusion_type`), gave 1,494 and 1,527 in place of 1,467, so no
flag is set. Not tried: reuse of the large buffers that XLA maps anew at each step, other schedulers.
"""

import dataclasses
import json
import math
import pathlib
import tempfile
from typing import NamedTuple

import jax
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict

import interop
from benchmarks import measure, peers
from configs import common
from core import mesh as meshes
from training import loop, optimizer, programs
from training import run as runs

BATCH = flags.DEFINE_integer("batch", 64, "Pairs in a batch.")
STEPS = flags.DEFINE_integer("steps", 8, "Steps of each arm in a round.")
CHECKED = 4  # first steps whose losses must agree
ROUNDS = flags.DEFINE_integer("rounds", 6, "Rounds; the best counts.")
# Exactly what CLIP's paper describes, small: 49 patches and a class token; 32 tokens, causal.
SIZES = dict(
    embed_dim=192,
    vision_cfg=dict(image_size=28, patch_size=4, width=192, layers=6, head_width=64),
    text_cfg=dict(context_length=32, vocab_size=1024, width=192, heads=3, layers=6),
)
PIXELS = dict(mean=[0.48, 0.46, 0.41], std=[0.27, 0.26, 0.28])
ADAM = dict(b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.2)  # open_clip's


class Fixed(NamedTuple):
    """A run's input that is already there."""

    batch: dict
    vocab_size: int | None = None  # no tokenizer
    records_per_epoch: int = 1_000_000

    def spec(self):
        """Shape and kind of a global batch."""
        return {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in self.batch.items()}


def batch(rows: int) -> dict:
    """Noise for images, and texts whose largest token, the last, ends them."""
    rng = np.random.default_rng(0)
    side, length = SIZES["vision_cfg"]["image_size"], SIZES["text_cfg"]["context_length"]
    ids = rng.integers(3, SIZES["text_cfg"]["vocab_size"] - 1, (rows, length), dtype=np.int32)
    ids[:, -1] = SIZES["text_cfg"]["vocab_size"] - 1
    return {"image": rng.integers(0, 256, (rows, side, side, 3), dtype=np.uint8), "text": ids}


def recipe() -> ConfigDict:
    """Of a run that updates as open_clip does: it decays whatever has two axes or more, and clips no gradient unless asked to."""
    made = common.base()
    made.data.global_batch = BATCH.value
    made.losses.main = dict(name="infonce", inputs=dict(zq="z_image", zp="z_text"), weight=1.0, options={})
    made.optimizer.no_decay = ("bias", "norm", "class_token", "^log_logit_scale$")
    made.optimizer.options, made.optimizer.clip_norm = ADAM, None
    made.optimizer.schedule = dict(name="constant", options={})
    made.train.steps = 10_000
    return made


class Ours:
    """Tandem's step as a run makes it: compiled, its state donated, arrays placed on the mesh before each step."""

    def __init__(self, folder: pathlib.Path, given: dict):
        self.batch, self.mesh = given, meshes.make()
        theirs = interop.read(folder)
        made = recipe()
        made.model = ConfigDict(theirs.model)
        run = runs.prepare(made, Fixed(given), self.mesh)
        with jax.set_mesh(self.mesh):
            params = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), theirs.params, run.abstract.params)
            self.state = dataclasses.replace(loop.fresh(run), params=params)
            self.update = programs.Programs(run)

    def step(self):
        """One update; the loss, not waited for."""
        stop = {"stop": np.zeros(len(self.batch["text"]), np.uint8)}
        with jax.set_mesh(self.mesh):
            arrays = meshes.place_batch(self.batch | stop, self.mesh)
            self.state, metrics = self.update(self.state, arrays, np.bool_(False))
        return metrics["train/loss"]


class Theirs:
    """The same update as open_clip's training loop makes it: eager, its loss, AdamW with its two groups, the scale clamped."""

    def __init__(self, folder: pathlib.Path, given: dict):
        self.torch, library = peers.torch(), peers.open_clip()
        self.torch.manual_seed(0)
        self.model, self.loss, self.done = library.CLIP(**SIZES), library.ClipLoss(), 0
        made = recipe()
        rate = optimizer.schedule(made.optimizer, made.train.steps)
        self.rates = np.asarray(jax.vmap(rate)(np.arange(made.optimizer.warmup_steps + 1))).tolist()  # constant from there
        pixels = (given["image"] / 255.0 - np.array(PIXELS["mean"])) / np.array(PIXELS["std"])
        self.image = self.torch.tensor(pixels, dtype=self.torch.float32).permute(0, 3, 1, 2).contiguous()
        self.text = self.torch.tensor(given["text"], dtype=self.torch.long)
        parameters = list(self.model.parameters())
        groups = [
            dict(params=[p for p in parameters if p.ndim < 2], weight_decay=0.0),
            dict(params=[p for p in parameters if p.ndim >= 2], weight_decay=ADAM["weight_decay"]),
        ]
        self.optimizer = self.torch.optim.AdamW(groups, lr=0.0, betas=(ADAM["b1"], ADAM["b2"]), eps=ADAM["eps"])
        self._write(folder)

    def _write(self, folder):
        from safetensors.torch import save_file

        save_file({k: v.contiguous() for k, v in self.model.state_dict().items()}, folder / "open_clip_model.safetensors")
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": SIZES, "preprocess_cfg": PIXELS}))

    def step(self):
        """One update; its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rates[min(self.done, len(self.rates) - 1)]
        self.done += 1
        self.optimizer.zero_grad()
        loss = self.loss(*self.model(self.image, self.text))
        loss.backward()
        self.optimizer.step()
        with self.torch.no_grad():
            self.model.logit_scale.clamp_(0, math.log(100))
        return loss.item()


def first_losses(ours, theirs) -> list[list[float]]:
    """Of both arms, which must agree: one model, one loss, one update, or the times compare different work."""
    losses = [[float(arm.step()) for _ in range(CHECKED)] for arm in (ours, theirs)]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    return losses


def round_of(step):
    """A call of several steps, which waits for the last."""

    def run():
        for _ in range(STEPS.value - 1):
            step()
        return step()

    return run


def main(_):
    given = batch(BATCH.value)
    with tempfile.TemporaryDirectory() as name:
        theirs = Theirs(pathlib.Path(name), given)
        ours = Ours(pathlib.Path(name), given)
    losses = first_losses(ours, theirs)
    found = measure.alternate({"Tandem": round_of(ours.step), "open_clip": round_of(theirs.step)}, ROUNDS.value)
    speeds = {name: BATCH.value * STEPS.value / times["seconds"] for name, times in found.items()}
    measure.save(
        "train_step",
        {
            "question": f"Examples per second of a small CLIP's training step, {BATCH.value} pairs?",
            "ratio": speeds["Tandem"] / speeds["open_clip"],
            "ours": speeds["Tandem"],
            "peer": speeds["open_clip"],
            "peer_name": f"open_clip {peers.open_clip().__version__}, eager torch {peers.torch().__version__}",
            "unit": "examples/s",
            "machine": measure.machine(),
            "processor_seconds_ratio": found["open_clip"]["processor_seconds"] / found["Tandem"]["processor_seconds"],
            "losses_of_first_steps": dict(zip(("Tandem", "open_clip"), losses, strict=True)),
            "rounds": ROUNDS.value,
            "steps_of_a_round": STEPS.value,
        },
    )


if __name__ == "__main__":
    app.run(main)
