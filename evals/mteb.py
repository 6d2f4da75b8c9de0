"""A Tandem encoder as a model of MTEB 2.x: `mteb.evaluate(evals.mteb.load("runs/code"), tasks)`.

mteb requires torch, so it is no dependency of Tandem: install it beside, `pip install mteb`. It is imported only when asked for.
"""

import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

import retrieval

# Views that may read one side of a task, the likeliest first.
SIDES = {"query": ("query", "text"), "document": ("passage", "document", "text"), None: ("text", "passage", "document", "query")}
ORGANISATION = "tandem"


def load(path, *, name: str | None = None, prompts: Mapping[str, str] | None = None, **options) -> "MtebEncoder":
    """The model at `path`, for MTEB.

    Args:
        path: the workdir of a run, or another library's model.
        name: `organisation/model` in result files; by default the folder's name.
        prompts: texts to put before inputs, see `MtebEncoder`.
        options: of `retrieval.load`.
    """
    return MtebEncoder(retrieval.load(path, **options), name or f"{ORGANISATION}/{pathlib.Path(path).resolve().name}", prompts)


class MtebEncoder:
    """The encoder protocol of MTEB 2.x around an encoder: queries go to the view `query`, documents to `passage`, where there are such.

    Args:
        encoder: the model.
        name: `organisation/model`.
        prompts: what to put before an input, by `task-side`, task, `type-side`, type or side, of which the first found counts (sides are
            `query` and `document`); by default those that came with the model. Without one, a view's own prompt stays.
    """

    def __init__(self, encoder: retrieval.Encoder, name: str, prompts: Mapping[str, str] | None = None):
        if name.count("/") != 1:
            raise ValueError(f"MTEB names models organisation/model, not {name!r}; give name='{ORGANISATION}/{name.replace('/', '-')}'.")
        self.encoder, self._name, self._prompts = encoder, name, dict(encoder.prompts if prompts is None else prompts)

    def encode(
        self, inputs: Iterable[Mapping[str, list]], *, task_metadata, hf_split: str, hf_subset: str, prompt_type=None, **kwargs
    ) -> np.ndarray:
        """Unit vectors float32 [n d] of batches of texts or of images.

        Raises:
            ValueError: inputs of texts and images in one.
        """
        texts, images = [], []
        for batch in inputs:
            texts += batch.get("text", ())
            images += batch.get("image", ())
        if texts and images:
            raise ValueError(f"task {task_metadata.name} joins a text and an image in one input, which no tower of Tandem reads.")
        if images:
            return self.encoder.encode(images, self.encoder.view_for(text=False), kwargs.get("batch_size", 32))
        side = None if prompt_type is None else str(getattr(prompt_type, "value", prompt_type))
        return self.encoder.encode(texts, self.view(side), prompt=self.prompt(task_metadata.name, task_metadata.type, side))

    def view(self, side: str | None) -> str:
        """The view that reads one side of a task."""
        readers = [view for view in self.encoder.views if self.encoder.reads_text(view)]
        return next((view for view in SIDES[side] if view in readers), None) or self.encoder.view_for(text=True)

    def prompt(self, task: str, kind: str, side: str | None) -> str | None:
        """What to put before the inputs of a task, by its name, its type and the side; None leaves it to the view."""
        composed = (lambda word: ()) if side is None else (lambda word: (f"{word}-{side}",))
        names = (*composed(task), task, *composed(kind), kind, *(() if side is None else (side,)))
        return next((self._prompts[name] for name in names if name in self._prompts), None)

    def similarity(self, embeddings1, embeddings2) -> np.ndarray:
        """Cosines [n1 n2]."""
        return _unit(embeddings1) @ _unit(embeddings2).T

    def similarity_pairwise(self, embeddings1, embeddings2) -> np.ndarray:
        """Cosines [n] of rows with rows."""
        return (_unit(embeddings1) * _unit(embeddings2)).sum(axis=-1)

    @property
    def mteb_model_meta(self):
        """What MTEB files results under; the revision is the fingerprint of the parameters.

        Raises:
            ImportError: mteb is not installed.
        """
        meta = _mteb().models.ModelMeta
        encoder = self.encoder
        text = [view for view in encoder.views if encoder.reads_text(view)]
        leaves = [leaf.size for leaf in jax.tree.leaves(encoder.params)]
        fields = {
            "name": self._name,
            "revision": encoder.fingerprint(),
            "framework": ["JAX"],
            "similarity_fn_name": "cosine",
            "embed_dim": encoder.dim,
            "n_parameters": sum(leaves),
            "memory_usage_mb": math.ceil(4 * sum(leaves) / 2**20),
            "max_tokens": max((encoder.max_tokens(view) for view in text), default=None),
            "use_instructions": bool(self._prompts),
            "modalities": [*(["text"] if text else []), *(["image"] if len(text) < len(encoder.views) else [])],
        }
        return meta.model_validate(meta.create_empty().model_dump() | fields)


def _unit(rows: Any) -> np.ndarray:
    rows = np.atleast_2d(np.asarray(rows, np.float32))
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def _mteb():
    try:
        import mteb
        import mteb.models
    except ImportError as error:
        raise ImportError(f"MTEB is not installed ({error}); it needs torch: pip install 'mteb>=2.26,<3'.") from error
    return mteb
