"""Low-rank adapters: which matrices get one, their factors, and the parameters with them added in.

An adapter lies beside the towers in the parameter tree, at `adapters/<tower>/<path of its matrix in the tower>/{a,b}`, in float32.
`merge` adds scale * a @ b to each matrix and drops the factors, so towers, checkpoints of other libraries and evaluation see plain
matrices. A fused matrix has an adapter for each of its parts: `.../qkv_kernel/q`, `.../qkv_kernel/k`, `.../qkv_kernel/v`.

The rest of a tower with adapters is frozen, but for what its `train` names: who forgets that would pay for full tuning.

Source: Hu et al. 2021 (LoRA, arXiv:2106.09685); Kalajdzievski 2023 (rsLoRA, arXiv:2312.03732); Lin et al. 2024 (LoRAT, arXiv:2403.05231).
"""

import dataclasses
import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from core.config import ConfigError, bind, check_keys, check_section, choose
from core.paths import by_path, check_patterns, from_paths, matches
from models.dual import companions

FUSED = {"qkv_kernel": ("q", "k", "v"), "kv_kernel": ("k", "v"), "gated_kernel": ("gate", "up")}  # parts along axis 1


@dataclasses.dataclass(frozen=True)
class Lora:
    """W + alpha / rank * a @ b.

    `rslora` divides by the root of the rank instead. `init="zero_b"` starts at the base model (a uniform within 1/sqrt(in), b zero);
    `normal` draws both from a normal of 0.02 cut at two deviations, so that the start differs a little. The input of an adapter
    gets no dropout: in parameter space there is no input.
    """

    rank: int = 8
    alpha: float = 8.0
    rslora: bool = False
    init: str = "zero_b"

    @property
    def scale(self) -> float:
        """What a @ b is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


def zero_b(key: Key[Array, ""], a: tuple[int, ...], b: tuple[int, ...]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Factors whose product is zero."""
    bound = 1 / math.sqrt(a[0])
    return jax.random.uniform(key, a, jnp.float32, -bound, bound), jnp.zeros(b, jnp.float32)


def normal(key: Key[Array, ""], a: tuple[int, ...], b: tuple[int, ...]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Factors that are both random, of standard deviation 0.02 before the cut at 0.04."""
    draw = lambda key, shape: 0.02 * jax.random.truncated_normal(key, -2.0, 2.0, shape, jnp.float32)
    one, other = jax.random.split(key)
    return draw(one, a), draw(other, b)


INITS: Mapping[str, Callable] = {"normal": normal, "zero_b": zero_b}
ADAPTERS = {"lora": Lora}


class Site(NamedTuple):
    """A matrix, or a part of a fused one, with an adapter."""

    path: str  # of the adapter: adapters/text/blocks/block_0/attention/qkv_kernel/q
    target: str  # of the matrix: towers_text/blocks/block_0/attention/qkv_kernel
    part: int | None  # place on axis 1 of a fused matrix
    shapes: tuple[tuple[int, ...], tuple[int, ...]]  # of a and b
    axes: tuple[tuple[str | None, ...], tuple[str | None, ...]]  # logical ones: a's input is split like the matrix's, b's outputs too
    lora: Lora


class Adapters(NamedTuple):
    """All adapters of a model; none of them is the base model."""

    sites: tuple[Site, ...] = ()

    @property
    def targets(self) -> tuple[str, ...]:
        """Paths of the matrices, each once."""
        return tuple(dict.fromkeys(site.target for site in self.sites))

    def boxed(self) -> dict[str, Any]:
        """Abstract factors with their logical axes, to lay beside a model's."""
        box = lambda shape, names: nn.LogicallyPartitioned(jax.ShapeDtypeStruct(shape, jnp.float32), names)
        return from_paths({f"{s.path}/{ab}": box(*made) for s in self.sites for ab, *made in zip("ab", s.shapes, s.axes, strict=True)})

    def init(self, seed: int) -> dict[str, Any]:
        """First factors, from the seed and their paths alone."""
        flat = {}
        for site in self.sites:
            key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(site.path.encode()))
            flat[f"{site.path}/a"], flat[f"{site.path}/b"] = INITS[site.lora.init](key, *site.shapes)
        return from_paths(flat)

    def merge(self, params):
        """The parameters that a model applies: each matrix with its adapters added in float32, and no factors.

        Raises:
            ValueError: parameters without the factors: they are merged already, or of another config.
        """
        flat = by_path(params)
        missing = [site.path for site in self.sites if f"{site.path}/a" not in flat]
        if missing:
            raise ValueError(f"the parameters hold no {missing[0]}: they are merged already, or config.model.adapters was another.")
        for target in self.targets:
            flat[target] = flat[target] + _delta(flat, [site for site in self.sites if site.target == target])
        return from_paths({path: leaf for path, leaf in flat.items() if not path.startswith("adapters/")})


def _delta(flat, sites: list[Site]):
    products = {s.part: s.lora.scale * jnp.tensordot(flat[f"{s.path}/a"], flat[f"{s.path}/b"], 1) for s in sites}
    if None in products:
        return products[None]
    parts = flat[sites[0].target].shape[1]
    zero = jnp.zeros_like(next(iter(products.values())))
    return jnp.stack([products.get(part, zero) for part in range(parts)], axis=1)


def make(model, boxed) -> Adapters:
    """The adapters that `config.model.adapters` asks for.

    Args:
        model: the section `config.model`; `adapters.<tower> = {name, patterns, train, options}`: `patterns` are looked for in the
            paths of adapters, `train` (may be left out) in those of parameters.
        boxed: abstract parameters with their logical axes.

    Raises:
        ConfigError: an unknown tower, key, option or init, or a pattern that matches no matrix of the tower.
    """
    section, flat, sites = _section(model), by_path(boxed), []
    check_keys(section, model.towers, "config.model.adapters")
    for label, entry in section.items():
        key = f"config.model.adapters.{label}"
        check_section(entry, ("name", "patterns", "train", "options"), key, optional=("train",))
        lora = bind(choose(ADAPTERS, entry.name, f"{key}.name"), entry.options, f"{key}.options")()
        choose(INITS, lora.init, f"{key}.options.init")
        if lora.rank < 1:
            raise ConfigError(f"{key}.options.rank is {lora.rank}; set it to 1 or more, 8 for example.")
        candidates = _candidates(label, flat)
        check_patterns(entry.patterns, list(candidates), f"{key}.patterns")
        check_patterns(_train(entry), [path for path in flat if path.startswith(f"towers_{label}/")], f"{key}.train")
        picked = [name for name in sorted(candidates) if matches(name, entry.patterns)]
        sites += [_site(name, candidates[name], flat[candidates[name]], lora) for name in picked]
    return Adapters(tuple(sites))


def frozen(config) -> tuple[str, ...]:
    """Patterns of all parameters without gradient: `config.optimizer.freeze`, companions, and towers under their adapters."""
    under = [f"^towers_{label}/" for label in companions(config.model)]
    for label, entry in _section(config.model).items():
        train = "|".join(f"(?:{pattern})" for pattern in _train(entry))
        under.append(f"^(?!.*(?:{train}))towers_{label}/" if train else f"^towers_{label}/")
    return (*config.optimizer.freeze, *under)


def _section(model):
    return model.adapters if "adapters" in model else {}  # a config of other origin may do without


def _train(entry) -> tuple[str, ...]:
    return tuple(entry.train) if "train" in entry else ()


def _candidates(label: str, flat) -> dict[str, str]:
    """Adapters that a tower could have, and their matrices: dense kernels, projections to heads [in, heads, head_dim], fused ones."""
    found = {}
    for path in (p for p in flat if p.startswith(f"towers_{label}/")):
        name, last = f"adapters/{label}/" + path.removeprefix(f"towers_{label}/"), path.rsplit("/", 1)[-1]
        if last in FUSED:
            found |= {f"{name}/{part}": path for part in FUSED[last]}
        elif last.endswith("kernel") and len(nn.unbox(flat[path]).shape) in (2, 3):
            found[name] = path
    return found


def _site(name: str, target: str, boxed, lora: Lora) -> Site:
    shape, last = nn.unbox(boxed).shape, target.rsplit("/", 1)[-1]
    names = boxed.names if isinstance(boxed, nn.Partitioned) else (None,) * len(shape)
    part = FUSED[last].index(name.rsplit("/", 1)[-1]) if last in FUSED else None
    outputs = 1 if part is None else 2
    shapes = ((shape[0], lora.rank), (lora.rank, *shape[outputs:]))
    return Site(name, target, part, shapes, ((names[0], None), (None, *names[outputs:])), lora)
