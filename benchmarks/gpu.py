"""What one NVIDIA GPU reaches: the matmul ceiling, the exact loss up to a million pairs, a CLIP ViT-B/16 step; beside its peers.

    python -m benchmarks.gpu                # under 8 minutes; writes results/gpu.json
    python -m benchmarks.gpu --tiny         # every part at toy size on a CPU, the kernel interpreted; writes nothing

Not yet run on a GPU: it is ready to run, and no number of it is stored. Each part, arm and size is measured by itself; one that fails
leaves its error in the JSON and the others go on. One that would overrun the time of its part, by the one before it, is skipped
and says so. Peers (open_clip, inf_cl) are compared where they can be imported. FLOP/s of the loss count 6 B^2 d, what the dense
loss needs; tiles compute 8. Times are the best of some runs after one to warm up.
"""

import datetime
import functools
import json
import os
import pathlib
import time

import numpy as np
from absl import app, flags

TINY = flags.DEFINE_bool("tiny", False, "Toy sizes, on any device; nothing is stored.")
SECONDS = flags.DEFINE_integer("seconds", 440, "Time for all parts.")
RESULT = pathlib.Path(__file__).parent / "results" / "gpu.json"
SHARES = {"matmul": 0.05, "pieces": 0.15, "loss": 0.5, "step": 0.3}  # of the time
OUT_OF_TIME = "skipped: its part's time is used up"


def guarded(call, *arguments):
    """A measurement, or the error that it ended with."""
    try:
        return call(*arguments)
    except Exception as error:  # whatever a peer or a compiler raises is itself a result
        return {"error": f"{type(error).__name__}: {str(error)[:400]}"}


def best(call, deadline):
    """Seconds of the best of up to five runs, after one that compiles."""
    call()
    found = []
    while len(found) < 5 and (not found or time.monotonic() + found[-1] < deadline):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return min(found)


def matmul(tiny, deadline):
    """The rate of a bfloat16 product with float32 sums: what the others are compared with."""
    import jax
    import jax.numpy as jnp

    size, rounds = (64, 2) if tiny else (8192, 16)
    keys = jax.random.split(jax.random.key(0), 2)
    a, b = (jax.random.normal(key, (size, size), jnp.bfloat16) for key in keys)

    @jax.jit
    def chain(a):
        return jax.lax.fori_loop(0, rounds, lambda _, x: (x @ b) * jnp.bfloat16(size**-0.5), a)

    seconds = best(lambda: jax.block_until_ready(chain(a)), deadline)
    return {"size": size, "seconds": seconds / rounds, "flop_per_second": 2 * size**3 * rounds / seconds}


def embeddings(size, width):
    """Unit rows of bfloat16, each pair closer than chance."""
    import jax
    import jax.numpy as jnp

    keys = jax.random.split(jax.random.key(0), 2)
    zq, noise = (jax.random.normal(key, (size, width), jnp.float32) for key in keys)
    return [(z / jnp.linalg.norm(z, axis=1, keepdims=True)).astype(jnp.bfloat16) for z in (zq, 0.5 * zq + noise)]


def pieces(tiny, deadline):
    """Sums and gradient of one tile by the kernel, for several sizes of a program's piece, and by XLA."""
    import jax
    import jax.numpy as jnp

    from losses import pallas_tiles, tiles
    from losses.tiles import Plan, Scalars, Side

    size, width = (32, 16) if tiny else (8192, 512)
    shapes = [(16, 16, 16, 4, 2)] if tiny else [(128, 128, 64, 8, 4), (128, 128, 64, 8, 3), (128, 256, 64, 8, 3), (64, 128, 64, 4, 3)]
    plan = Plan("softmax", "own", True, "ring", size, "bfloat16", "interpret" if tiny else "pallas")
    q, p = (Side(z, jnp.arange(size)) for z in embeddings(size, width))
    scalars = Scalars(*(jnp.float32(x) for x in (50, 0, 0)))
    rows, columns = jax.jit(functools.partial(tiles.tile_sums, plan))(scalars, q, p)
    ones = jnp.full(size, 1 / size)
    row, column = (tiles.saved(plan, found, ones, None if found is columns else -ones) for found in (rows, columns))
    arms = {"xla": (tiles, {})} | {str(shape): (pallas_tiles, {"piece": pallas_tiles.Piece(*shape)}) for shape in shapes}

    def rates(module, options):
        calls = {
            "sums": (module.tile_sums, (scalars, q, p)),
            "gradient": (module.tile_gradient, (scalars, q, p, row, column)),
        }
        found = {}
        for name, (function, arguments) in calls.items():
            program = jax.jit(functools.partial(function, plan, **options)).lower(*arguments).compile()
            found[name] = 2 * size**2 * width / best(lambda run=program, given=arguments: jax.block_until_ready(run(*given)), deadline)
        return {f"{name}_flop_per_second": rate for name, rate in found.items()}

    return {name: guarded(rates, *arm) if time.monotonic() < deadline else {"error": OUT_OF_TIME} for name, arm in arms.items()}


def ours(kernel, method, block_size, size, width, deadline):
    """Value and all gradients of InfoNCE, both directions."""
    import jax
    import jax.numpy as jnp

    from losses.infonce import infonce

    def mean(zq, zp, scale):
        return infonce(zq, zp, scale, method=method, block_size=block_size, matmul_dtype="bfloat16", kernel=kernel)[0].mean()

    arrays = *embeddings(size, width), jnp.float32(50)
    program = jax.jit(jax.value_and_grad(mean, argnums=(0, 1, 2))).lower(*arrays).compile()
    value = float(program(*arrays)[0])
    memory = program.memory_analysis()
    peak = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    seconds = best(lambda: jax.block_until_ready(program(*arrays)), deadline)
    return {"value": value, "seconds": seconds, "temp_bytes": memory.temp_size_in_bytes, "peak_bytes": peak}


def theirs(loss_of, size, width, deadline):
    """The same by a PyTorch function of (queries, passages, scale)."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    zq, zp = (torch.tensor(np.asarray(z, np.float32), device=device, dtype=torch.bfloat16) for z in embeddings(size, width))
    leaves = [zq.requires_grad_(), zp.requires_grad_(), torch.tensor(50.0, device=device, requires_grad=True)]
    loss, gpu = loss_of(), device == "cuda"
    if gpu:
        torch.cuda.reset_peak_memory_stats()

    def run():
        value = loss(*leaves)
        grads = torch.autograd.grad(value, leaves)
        if gpu:
            torch.cuda.synchronize()
        return value, grads

    value = float(run()[0])
    found = {"value": value, "seconds": best(run, deadline), "peak_bytes": torch.cuda.max_memory_allocated() if gpu else None}
    if gpu:
        torch.cuda.empty_cache()
    return found


def open_clip_loss():
    """open_clip's loss: the whole matrix."""
    from benchmarks import peers

    return peers.open_clip().ClipLoss()


def inf_cl_loss():
    """Inf-CL's loss on one GPU, both directions as CLIP has them."""
    from inf_cl import cal_flash_loss

    return lambda q, p, scale: (cal_flash_loss(q, p, scale=scale).mean() + cal_flash_loss(p, q, scale=scale).mean()) / 2


def loss(tiny, deadline):
    """Every arm at every size; an arm stops where it failed or where four times its last time is not left."""
    width, kernel = (16, "interpret") if tiny else (512, "pallas")
    sizes = [40] if tiny else [16384, 65536, 262144, 1048576]
    blocks = (16, 24) if tiny else (4096, 8192)
    arms = {f"tandem {kernel} {block}": functools.partial(ours, kernel, "ring", block) for block in blocks}
    arms |= {f"tandem xla {block}": functools.partial(ours, "xla", "ring", block) for block in blocks[:1]}
    arms |= {"tandem dense": functools.partial(ours, "xla", "dense", 1)}
    arms |= {"inf_cl": functools.partial(theirs, inf_cl_loss), "open_clip": functools.partial(theirs, open_clip_loss)}
    last, rows = dict.fromkeys(arms, 0.0), []
    for size in sizes:
        row = {"pairs": size}
        for name, arm in arms.items():
            if last[name] is None or time.monotonic() + 2 * 16 * last[name] > deadline:
                row[name] = {"error": "skipped: its last size failed" if last[name] is None else OUT_OF_TIME}
                continue
            row[name] = guarded(arm, size, width, deadline)
            last[name] = row[name].get("seconds")
            if "seconds" in row[name]:
                row[name]["flop_per_second"] = 6 * size**2 * width / row[name]["seconds"]
        rows.append(row)
    return {"width": width, "rows": rows}


def clip_sizes(tiny):
    """CLIP ViT-B/16, or a toy of its kind, as open_clip writes it; and the batch."""
    if tiny:
        vision, text = (
            dict(image_size=16, patch_size=8, width=64, layers=1),
            dict(context_length=8, vocab_size=64, width=64, heads=1, layers=1),
        )
        return dict(embed_dim=16, vision_cfg=vision, text_cfg=text), 4
    vision = dict(image_size=224, patch_size=16, width=768, layers=12)
    return dict(embed_dim=512, vision_cfg=vision, text_cfg=dict(context_length=77, vocab_size=49408, width=512, heads=8, layers=12)), 512


def clip_batch(sizes, rows):
    """Noise for images, and texts that end in their largest token."""
    rng = np.random.default_rng(0)
    side, text = sizes["vision_cfg"]["image_size"], sizes["text_cfg"]
    ids = rng.integers(3, text["vocab_size"] - 1, (rows, text["context_length"]), dtype=np.int32)
    ids[:, -1] = text["vocab_size"] - 1
    return rng.integers(0, 256, (rows, side, side, 3), dtype=np.uint8), ids


def our_step(tiny, deadline):
    """Images per second and MFU of value, gradients and AdamW on Tandem's towers."""
    import jax
    import jax.numpy as jnp
    import optax

    from losses.infonce import infonce
    from models.dual import DualEncoder
    from models.text import Text
    from models.vit import ViT
    from training import flops

    sizes, rows = clip_sizes(tiny)
    vision, text = sizes["vision_cfg"], sizes["text_cfg"]
    shared = dict(embed_dim=sizes["embed_dim"], dtype="bfloat16", scan=not tiny)
    image_tower = ViT(
        image_size=vision["image_size"], patch_size=vision["patch_size"], width=vision["width"], layers=vision["layers"],
        heads=vision["width"] // 64, activation="gelu", pooling="cls", class_position=True, patch_bias=False, pre_norm=True, **shared,
    )  # fmt: skip
    text_tower = Text(
        vocab_size=text["vocab_size"], length=text["context_length"], width=text["width"], layers=text["layers"], heads=text["heads"],
        eos_id=-1, **shared,
    )  # fmt: skip
    model = DualEncoder(towers={"image": image_tower, "text": text_tower}, views={"image": "image", "text": "text"})
    batch = dict(zip(("image", "text"), (jnp.asarray(x) for x in clip_batch(sizes, rows)), strict=True))
    params = jax.jit(model.init)(jax.random.key(0), batch)["params"]
    update = optax.adamw(5e-4, b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.2)

    def objective(params, batch):
        out = model.apply({"params": params}, batch)
        return infonce(out["z_image"], out["z_text"], out["logit_scale"], matmul_dtype="bfloat16")[0].mean()

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, batch):
        value, gradients = jax.value_and_grad(objective)(params, batch)
        changes, state = update.update(gradients, state, params)
        return optax.apply_updates(params, changes), state, value

    forward = flops.matmul_flops(lambda p, b: model.apply({"params": p}, b), params, batch)
    state = jax.jit(update.init)(params)
    held = [params, state]

    def run():
        held[0], held[1], value = step(*held, batch)
        jax.block_until_ready(value)

    seconds = best(run, deadline)
    found = {"batch": rows, "seconds": seconds, "images_per_second": rows / seconds, "flop_per_second": 3 * forward / seconds}
    return found | {"mfu": flops.mfu(forward, seconds, jax.devices()[:1])}


def their_step(tiny, deadline):
    """The same of open_clip: bfloat16 by autocast, its attention (flash on GPUs), compiled."""
    import torch

    from benchmarks import peers

    library, (sizes, rows) = peers.open_clip(), clip_sizes(tiny)
    gpu = torch.cuda.is_available()
    device = "cuda" if gpu else "cpu"
    model = library.CLIP(**sizes).to(device)
    forward = model if tiny else torch.compile(model)
    images, ids = clip_batch(sizes, rows)
    image = torch.tensor(images, device=device).permute(0, 3, 1, 2).float() / 255
    text = torch.tensor(ids, dtype=torch.long, device=device)
    criterion = library.ClipLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2, fused=gpu)

    def run():
        optimizer.zero_grad()
        with torch.autocast(device, dtype=torch.bfloat16):
            value = criterion(*forward(image, text)[:3])
        value.backward()
        optimizer.step()
        value.item()  # waits

    seconds = best(run, deadline)
    return {"batch": rows, "seconds": seconds, "images_per_second": rows / seconds}


def step(tiny, deadline):
    """A training step of CLIP ViT-B/16, Tandem's and open_clip's."""
    middle = time.monotonic() + (deadline - time.monotonic()) / 2
    return {"tandem": guarded(our_step, tiny, middle), "open_clip": guarded(their_step, tiny, deadline)}


def measure(tiny, seconds):
    """All parts, each with its share of the time."""
    found = {}
    for part in (matmul, pieces, loss, step):
        name = part.__name__
        found[name] = guarded(part, tiny, time.monotonic() + SHARES[name] * seconds)
    return found


def summary(found):
    """What the page of results shows first: the largest loss that the kernel computed, beside the ceiling."""
    rate = found["matmul"].get("flop_per_second")
    arms = [(row["pairs"], name, arm) for row in found["loss"].get("rows", []) for name, arm in row.items() if name != "pairs"]
    ran = [(pairs, arm["flop_per_second"], name) for pairs, name, arm in arms if name.startswith("tandem") and "flop_per_second" in arm]
    if not rate or not ran:
        return {"ratio": None}
    pairs, reached, name = max(ran)
    question = f"FLOP/s (6 B^2 d) of the exact loss over {pairs} pairs ({name}), beside the bfloat16 matmul rate?"
    return dict(question=question, ratio=reached / rate, ours=reached, peer=rate, peer_name="bfloat16 matmul", unit="FLOP/s")


def main(_):
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs room on the same GPU
    import jax

    if not TINY.value and jax.default_backend() != "gpu":
        raise SystemExit(f"found a {jax.default_backend()}, but this needs one NVIDIA GPU; --tiny runs every part on any device.")
    start = time.monotonic()
    found = measure(TINY.value, SECONDS.value)
    device = dict(device=jax.devices()[0].device_kind, jax=jax.__version__, date=datetime.date.today().isoformat())
    result = summary(found) | {"machine": device, "seconds": time.monotonic() - start, "parts": found}
    if not TINY.value:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    app.run(main)
