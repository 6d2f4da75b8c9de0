"""A model as an encoder of raw values: texts and images in, unit vectors out."""

import hashlib
import json
import pathlib
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from core import mesh as meshes
from core.config import ConfigError, options_of, plain
from core.paths import by_path
from input_pipeline import decode
from input_pipeline.image import resize
from input_pipeline.transforms import bind_transforms, stack
from interop.imported import Imported
from models import cut, dual
from models.layers import unit
from retrieval import buckets
from retrieval.products import rounded

# Tokens of a batch, on each device. On two cores 2,048 are 4% faster than 4,096, whose arrays leave the cache; an accelerator wants more
# (its number was not measured).
TOKENS = {"cpu": 2048, "other": 16_384}
WINDOW = 16_384  # texts that are tokenised and sorted together; their ids are all that is kept beside the vectors
HOW = ("crop", "kernel", "centre")  # options of a transform of images that decide what is seen of one
AT_ONCE = 2  # batches: on two cores 4% faster in float32 and 7% in bfloat16, since parts of a program use one core


class Encoder:
    """A trained model with its tokenizer, on a mesh of its own.

    `logit_scale` and `logit_bias` (None for a model without) are the learned ones; `params` is the tree of parameters; `step` is the
    checkpoint's; `prompts` are those that came with the weights, by name; `dim` is the length of a vector. With a `dtype` of
    `bfloat16`, operands of matrix products are rounded to it (`retrieval/products.py`).
    """

    def __init__(
        self,
        config,
        params,
        tokenizer,
        mesh,
        step: int,
        weights: str,
        *,
        prompts: Mapping[str, str] | None = None,
        truncate_dim: int | None = None,
        dtype: str = "float32",
    ):
        self.config, self.step, self.weights, self.prompts = config, step, weights, dict(prompts or {})
        self._tokenizer, self._mesh = tokenizer, mesh
        self._model = dual.build(config.model, tokenizer.vocab_size if tokenizer else None)
        self.params, self._transforms = params, bind_transforms(config.data.transforms)
        self.logit_scale = float(np.exp(params["log_logit_scale"]))
        self.logit_bias = float(params["logit_bias"]) if "logit_bias" in params else None
        self.dim = _dim(self._tower(self.views[0]).output_dim, truncate_dim)
        self.dtype = dtype
        self._round = (lambda apply: apply) if dtype == "float32" else partial(rounded, dtype=dtype)
        self._compiled = {view: jax.jit(self._round(partial(self._apply, view))) for view in self.views}

    def smaller(self, *, layers: int | Mapping[str, int] | None = None, truncate_dim: int | None = None) -> "Encoder":
        """The same model with its first layers alone, or with fewer values of a vector, for models that were trained for it.

        Args:
            layers: that are kept of every tower, or by its label; None keeps all.
            truncate_dim: leading values that are kept, and brought to length one again; None keeps those of now.

        Raises:
            ConfigError: more layers or values than there are.
        """
        config, params = self.config.copy_and_resolve_references(), self.params
        if layers is not None:
            model, params = cut.to_layers(plain(config.model), params, layers)
            with config.unlocked():
                config.model = ConfigDict(model)
        options = dict(prompts=self.prompts, truncate_dim=self.dim if truncate_dim is None else truncate_dim, dtype=self.dtype)
        return Encoder(config, params, self._tokenizer, self._mesh, self.step, self.weights, **options)

    @property
    def views(self) -> tuple[str, ...]:
        """Views by name: `image`, `text`, ..."""
        return tuple(self.config.model.views)

    @property
    def tokens(self) -> int:
        """Tokens of texts at once on each device, where nobody says otherwise."""
        return TOKENS["cpu" if self._mesh.devices.flat[0].platform == "cpu" else "other"]

    def encode(
        self, values: Sequence | str, view: str | None = None, batch: int = 256, *,
        prompt: str | None = None, tokens: int | None = None, done: Callable[[int], object] | None = None,
    ) -> np.ndarray:  # fmt: skip
        """Unit vectors of texts or images, in the order given.

        Texts are sorted by length, and those of like length padded to one of a few widths: a handful of shapes compile, and little
        is computed for padding.

        Args:
            values: strings; or images as uint8 arrays [H W] or [H W C], Pillow images or paths of files. For a view of stored vectors,
                what they are stored of, or the vectors themselves, one float32 array [w] each.
            view: which tower; by default the first that reads what was given.
            batch: images encoded at once, rounded up to the mesh; the last rows are padded to it and cut off again.
            prompt: put before each text, in place of the view's own.
            tokens: texts are encoded about so many tokens at once, on each device; by default `self.tokens`.
            done: called with the number of rows of each batch, for a progress bar.

        Returns:
            float32 [N d], rows of length one; [d] for a single string.

        Raises:
            ConfigError: no view reads such values, an unknown view, or a prompt for images.
            ValueError: an array that is not a uint8 image.
        """
        if isinstance(values, str):
            return self.encode([values], view, batch, prompt=prompt)[0]
        view = self.view_for(_is_text(values)) if view is None else view
        self.reads_text(view)
        vectors, waiting = np.zeros((len(values), self.dim), np.float32), deque()

        def take():
            rows, made = waiting.popleft()
            vectors[rows] = made.result()[: len(rows)]
            if done is not None:
                done(len(rows))

        # Programs that run across devices must start in one order on all of them: one thread then.
        with ThreadPoolExecutor(AT_ONCE if self._mesh.size == 1 else 1) as pool:
            for rows, arrays in self._batches(view, values, batch, prompt, tokens or self.tokens):
                waiting.append((rows, pool.submit(self._vectors, self._compiled[view], arrays)))
                if len(waiting) > AT_ONCE:
                    take()
            while waiting:
                take()
        return vectors

    def dense(self, values: Sequence, view: str, batch: int = 256) -> np.ndarray:
        """What each position of images says in the space of the vectors, of any length: float32 [N p d], N not 0, as `encode` reads images.

        Raises:
            ConfigError: an unknown view, or one of texts.
        """
        if not self.reads_images(view):
            raise ConfigError(f"view {view!r} does not read images; name one that does, of {', '.join(self.views)}.")
        compiled = jax.jit(self._round(partial(self._apply_dense, view)))
        batches = self._batches(view, values, batch, None, self.tokens)
        return np.concatenate([self._vectors(compiled, arrays)[: len(rows)] for rows, arrays in batches])

    def reads_text(self, view: str) -> bool:
        """Whether a view takes texts; the others take images, or vectors.

        Raises:
            ConfigError: no such view.
        """
        if view not in self.views:
            raise ConfigError(f"no view {view!r}; this model has {', '.join(self.views)}.")
        return hasattr(self._tower(view), "vocab_size")

    def reads_images(self, view: str) -> bool:
        """Whether a view takes images."""
        return hasattr(self._tower(view), "channels")

    def max_tokens(self, view: str) -> int:
        """Tokens of a text that a view reads; what follows them is cut off."""
        return options_of(self._transforms[view])["length"]

    def view_for(self, text: bool) -> str:
        """The first view that reads texts, or images.

        Raises:
            ConfigError: there is none.
        """
        found = [view for view in self.views if (self.reads_text(view) if text else self.reads_images(view))]
        if not found:
            raise ConfigError(f"no tower reads {'text' if text else 'images'}; this model has the views {', '.join(self.views)}.")
        return found[0]

    def image(self, value, view: str) -> np.ndarray:
        """An image as the transform of a view takes it: uint8 [H W C], of the tower's size where it has one.

        Raises:
            ValueError: an array that is not a uint8 image.
        """
        tower, options = self._tower(view), {}
        if view in self.config.data.transforms:
            options = {name: value for name, value in self.config.data.transforms[view].options.items() if name in HOW}
        return as_image(value, getattr(tower, "image_size", None), tower.channels, **options)

    def fingerprint(self) -> str:
        """16 hex digits that change with any parameter."""
        digest = hashlib.sha256()
        for path, leaf in sorted(by_path(self.params).items()):
            digest.update(path.encode() + np.asarray(leaf).tobytes())
        return digest.hexdigest()[:16]

    def imported(self) -> Imported:
        """The model as `interop` writes it for other libraries."""
        transforms = plain(self.config.data.transforms)
        return Imported(plain(self.config.model), self.params, self._tokenizer, transforms, (), self.prompts)

    def describe(self, view: str) -> dict:
        """All that a vector of a view depends on beside its value, ready for JSON: two encoders that agree here make the same vectors."""
        options = plain(self.config.model.towers[self.config.model.views[view]])
        transform = plain(self.config.data.transforms[view]) if view in self.config.data.transforms else None
        found = {"fingerprint": self.fingerprint(), "weights": self.weights, "step": self.step, "view": view}
        found |= {"dim": self.dim, "dtype": self.dtype}
        return found | {"tower": json.loads(json.dumps(options)), "transform": transform, "tokenizer": self._tokenizer_digest(view)}

    def _tokenizer_digest(self, view: str) -> str | None:
        if self._tokenizer is None or not self.reads_text(view):
            return None
        with tempfile.TemporaryDirectory() as folder:
            self._tokenizer.save(folder)
            files = sorted(path for path in pathlib.Path(folder).rglob("*") if path.is_file())
            return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()[:16]

    def _batches(self, view, values, batch, prompt, tokens) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        """Indices of the rows of each batch, and its arrays, filled up with rows of zeros."""
        parts = meshes.shards(self._mesh)
        text = self.reads_text(view)
        if prompt is not None and not text:
            raise ConfigError(f"view {view!r} reads no texts, and only they take a prompt.")
        window = WINDOW if text else -(-batch // parts) * parts
        for start in range(0, len(values), window):
            arrays = self._arrays(view, values[start : start + window], prompt)
            count = len(arrays[0])
            planned = self._plan(view, arrays, tokens * parts, parts) if text else [buckets.Batch(np.arange(count), window, None)]
            for rows, size, width in planned:
                cut = [array[rows, :width] for array in arrays]
                yield start + rows, [np.concatenate([a, np.zeros((size - len(a), *a.shape[1:]), a.dtype)]) for a in cut]

    def _plan(self, view, arrays, tokens, parts) -> list[buckets.Batch]:
        ids, mask = arrays[0], arrays[1] if len(arrays) > 1 else None
        lengths = np.full(len(ids), ids.shape[1])
        # A tower that looks at padding gets all of it; elsewhere what follows the last kept token changes nothing.
        if mask is not None and not getattr(self._tower(view), "attend_padding", False):
            lengths = np.maximum(ids.shape[1] - np.argmax(mask[:, ::-1], axis=1), 1) * mask.any(axis=1)
        return buckets.plan(lengths, buckets.widths(ids.shape[1]), tokens, parts)

    def _vectors(self, compiled: Callable, arrays: Sequence[np.ndarray]) -> np.ndarray:
        with jax.set_mesh(self._mesh):
            placed = jax.device_put(arrays, meshes.batch_sharding(self._mesh))
            return np.asarray(compiled(self.params, *placed), np.float32)

    def _apply(self, view: str, params, x, mask=None, pool_mask=None):
        only_text = {} if pool_mask is None else dict(pool_mask=pool_mask)
        vectors = self._model.apply({"params": params}, view, x, mask, **only_text, method="encode")["embedding"]
        return vectors if self.dim == vectors.shape[1] else unit(vectors[:, : self.dim])

    def _apply_dense(self, view: str, params, x, mask=None):
        return self._model.apply({"params": params}, view, x, mask, capture=("dense",), method="encode")["dense"][..., : self.dim]

    def _tower(self, view: str) -> nn.Module:
        return self._model.towers[self.config.model.views[view]]

    def _arrays(self, view: str, values: Sequence, prompt: str | None = None) -> tuple[np.ndarray, ...]:
        """The view's arrays as training makes them, without anything random: what it is, and its masks if it has any."""
        transform = self._transforms.get(view, stack)
        if self.reads_images(view):
            values = [self.image(value, view) for value in values]
        elif not self.reads_text(view) and len(values) and isinstance(values[0], np.ndarray):
            transform, values = stack, [np.asarray(value, np.float32) for value in values]
        elif prompt is not None:
            transform = partial(transform, prompt=prompt)
        arrays = transform(list(values), None, self._tokenizer)
        return tuple(arrays[suffix] for suffix in ("", "_mask", "_pool_mask") if suffix in arrays)


def _is_text(values: Sequence) -> bool:
    first = values[0] if len(values) else None
    return isinstance(first, str) and pathlib.Path(first).suffix.lower() not in Image.registered_extensions()


def _dim(width: int, truncate_dim: int | None) -> int:
    if truncate_dim is not None and not 1 <= truncate_dim <= width:
        raise ConfigError(f"truncate_dim is {truncate_dim}, but the model's vectors have {width} values; choose 1 to {width}.")
    return width if truncate_dim is None else truncate_dim


def as_image(value, size: int | None, channels: int, **how) -> np.ndarray:
    """uint8 [size size channels] from a uint8 array, a Pillow image, the bytes of a file or its path; converted, and stretched or
    cropped where it differs.

    Args:
        value: an image.
        size: both sides of the result; None keeps those of the image.
        channels: 1 or 3.
        how: options of `input_pipeline.image.resize` that are in `HOW`.

    Raises:
        ValueError: an array that is not a uint8 image.
        BadRecord: a file that cannot be decoded.
    """
    if isinstance(value, (str, pathlib.Path)):
        value = pathlib.Path(value).read_bytes()
    if isinstance(value, bytes):
        value = decode.pixels(value, channels)
    if not isinstance(value, Image.Image):
        value = np.asarray(value)
        if value.dtype != np.uint8 or value.ndim not in (2, 3) or (value.ndim == 3 and value.shape[2] not in (1, 3, 4)):
            raise ValueError(f"an image must be uint8 [H W] or [H W C] with C of 1, 3 or 4, not {value.dtype} {value.shape}.")
        value = Image.fromarray(value[..., 0] if value.ndim == 3 and value.shape[2] == 1 else value)
    array = np.asarray(value.convert("L" if channels == 1 else "RGB")).reshape(value.height, value.width, channels)
    return array if size is None or array.shape[:2] == (size, size) else resize(array, size, size, **how)
