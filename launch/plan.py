"""Says what a step of a config takes of each device, on a mesh of any size, without running it.

    python -m launch.plan --config=configs/glyphs.py --mesh=data=8,fsdp=4,tensor=1 [--device=h200] [--json]
    python -m launch.plan --table

Codes: 0 it fits or no device was named, 3 mistake in the config, or it does not fit. The formulas are in docs/scaling.md.
"""

import json
import pathlib
import tempfile
from functools import partial
from types import MappingProxyType

from absl import flags
from ml_collections import config_flags

from core.config import ConfigError, choose
from launch import process

_CONFIG = config_flags.DEFINE_config_file("config", None, "path of a config, with its argument after a colon", lock_config=True)
_MESH = flags.DEFINE_string("mesh", None, "sizes of the axes, as data=8,fsdp=4,tensor=1; those left out are 1")
_DEVICE = flags.DEFINE_string("device", None, "refuse what does not fit this device: v5e, v5p, v6e, a100, h100, h200")
_JSON = flags.DEFINE_bool("json", False, "print one JSON object")
_TABLE = flags.DEFINE_bool("table", False, "print the table of docs/scaling.md instead")

TOWERS = {  # Dosovitskiy et al. 2021 (arXiv:2010.11929); So400m: Alabdulmohsin et al. 2023 (arXiv:2305.13035)
    "ViT-B/16": dict(patch_size=16, width=768, layers=12, heads=12),
    "ViT-L/16": dict(patch_size=16, width=1024, layers=24, heads=16),
    "So400m/14": dict(patch_size=14, width=1152, layers=27, heads=16, mlp_ratio=4304.5 / 1152),  # the half survives rounding down
}
BATCHES = (16_384, 65_536, 262_144, 1_048_576)
CHIPS = (8, 64, 512, 4096)
DEVICES = ("v5e", "v6e", "h200")
ROWS = 64  # of a device that its towers see at once


def main(_) -> None:
    import jax

    jax.config.update("jax_platforms", "cpu")  # a plan leaves accelerators to those who run
    process.start()
    with process.exit_codes():
        if _TABLE.value:
            print(scaling_table())
            return
        if _CONFIG.value is None or _MESH.value is None:
            raise ConfigError("set --config and --mesh, or --table alone.")
        sizes = parse_mesh(_MESH.value)
        plan = of_config(_CONFIG.value, sizes)
        reason = refusal(plan, _DEVICE.value)
        print(json.dumps(as_json(plan, sizes, _DEVICE.value, reason)) if _JSON.value else render(plan, sizes, _DEVICE.value))
        if reason:
            raise ConfigError(reason)


def parse_mesh(text: str) -> dict[str, int]:
    """`data=8,fsdp=4` as sizes of all axes.

    Raises:
        ConfigError: another axis, or a size that is no positive number.
    """
    sizes = dict(data=1, fsdp=1, tensor=1)
    for item in text.split(","):
        axis, _, size = item.partition("=")
        if axis not in sizes or not size.isdecimal() or int(size) < 1:
            raise ConfigError(f"--mesh={text} has {item!r}; write it as --mesh=data=8,fsdp=4,tensor=1.")
        sizes[axis] = int(size)
    return sizes


def of_config(config, sizes: dict[str, int]):
    """The plan of a config; builds its sources and tokenizer in a folder that is deleted."""
    import interop
    from core import mesh as meshes
    from training import plan as plans
    from training import run as runs
    from training.data import open_data

    config = interop.resolve(config)
    mesh = plans.mesh_of(**sizes)
    meshes.check_batch(config.data.global_batch, mesh)  # before the sources are built
    with tempfile.TemporaryDirectory() as folder:
        run = runs.prepare(config, open_data(config, pathlib.Path(folder)), mesh)
    return plans.of_run(run, config)


def refusal(plan, device: str | None) -> str | None:
    """Why the plan does not fit the device; None if it does, or no device is named.

    Raises:
        ConfigError: an unknown device.
    """
    from training import plan as plans

    return None if device is None else plans.refusal(plan, choose(plans.MEMORY, device, "--device"), device)


def as_json(plan, sizes: dict[str, int], device: str | None, reason: str | None) -> dict:
    """The plan for programs: bytes of one device, FLOPs of all."""
    totals = {"bytes_per_device": plan.bytes, "sent_per_device": sum(plan.sent.values())}
    return {"mesh": sizes, "device": device, **plan._asdict(), **totals, "fits": reason is None, "reason": reason}


def render(plan, sizes: dict[str, int], device: str | None) -> str:
    """The plan for readers."""
    from training import plan as plans

    number = lambda values: [(kind, f"{value:,}") for kind, value in values.items()]
    size = lambda values: [(kind, in_bytes(value)) for kind, value in values.items() if value]
    share = "" if device is None else f" ({plan.bytes / plans.MEMORY[device]:.0%} of {device})"
    devices = f"{sizes['data'] * sizes['fsdp'] * sizes['tensor']:,} devices"
    sections = [
        ("parameters", [*number(plan.parameters), ("in all", f"{sum(plan.parameters.values()):,}")]),
        ("memory of a device", [*size(plan.memory), ("in all", in_bytes(plan.bytes) + share)]),
        ("matmul FLOPs of a step", [("towers", f"{plan.tower_flops:.3e}"), ("losses", f"{plan.loss_flops:.3e}")]),
        ("sent by a device in a step", [*size(plan.sent), ("in all", in_bytes(sum(plan.sent.values())))]),
    ]
    lines = [f"{devices}: " + ", ".join(f"{axis}={n}" for axis, n in sizes.items())]
    for title, rows in sections:
        lines += ["", title, *(f"  {kind:<16}{value:>24}" for kind, value in rows)]
    return "\n".join(lines)


def in_bytes(value: float) -> str:
    """Bytes with a decimal unit, as makers of memory count."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= factor:
            return f"{value / factor:.1f} {unit}"
    return f"{value} B"


def scaling_table(towers=MappingProxyType(TOWERS)) -> str:
    """The table of docs/scaling.md: image towers of three sizes with CLIP's text tower, pure data parallelism, tiles on a ring."""
    lines = [
        "| image tower | batch | FLOPs of a step | " + " | ".join(f"{chips:,} chips" for chips in CHIPS) + " |",
        "|---" * (3 + len(CHIPS)) + "|",
    ]
    for name, options in towers.items():
        model, spec, known = _surveyed(options)
        for batch in BATCHES:
            plans = [_planned(model, spec, known, batch, chips) for chips in CHIPS]
            flops = plans[0].tower_flops + plans[0].loss_flops
            lines.append(f"| {name} | {batch:,} | {flops:.2e} | " + " | ".join(map(_cell, plans)) + " |")
    return "\n".join(lines)


def _cell(plan) -> str:
    fits = [device for device in DEVICES if refusal(plan, device) is None]
    return f"{plan.bytes / 1e9:.1f} GB, {sum(plan.sent.values()) / 1e9:.1f} GB sent: {' '.join(fits) or 'none'}"


def _surveyed(image: dict):
    import jax
    import numpy as np

    from models.dual import DualEncoder
    from models.text import Text
    from models.vit import ViT
    from training import plan as plans

    both = dict(embed_dim=512, dtype="bfloat16", scan=True, remat=True)
    towers = dict(
        image=ViT(image_size=224, pooling="attention", **image, **both),
        text=Text(vocab_size=49_408, length=77, width=512, layers=12, heads=8, **both),
    )
    model = DualEncoder(towers=towers, views=dict(image="image", text="text"))
    shapes = dict(image=((224, 224, 3), np.uint8), text=((77,), np.int32), text_mask=((77,), bool), id=((), np.int32))
    spec = lambda batch: {key: jax.ShapeDtypeStruct((batch, *shape), dtype) for key, (shape, dtype) in shapes.items()}
    return model, spec, plans.survey(model, spec(1))


def _planned(model, spec, known, batch: int, chips: int):
    from losses.entries import Entry
    from losses.infonce import infonce
    from training import plan as plans

    entry = Entry("main", partial(infonce, method="ring"), {}, frozenset())
    return plans.make(model, [entry], spec(batch), plans.mesh_of(chips), (), microbatches=max(1, batch // chips // ROWS), known=known)


if __name__ == "__main__":
    process.run(main)
