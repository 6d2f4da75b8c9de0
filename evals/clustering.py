"""Clustering: how well k-means finds the classes of a set of texts again."""

import random
import warnings
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from sklearn.cluster import MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_mutual_info_score, v_measure_score
from threadpoolctl import threadpool_limits

from core.config import ConfigError
from evals import metrics
from evals.evaluation import Evaluation

LEGACY_BATCH, FAST_BATCH = 500, 512  # of MTEB


def clustering(
    encode: Mapping[str, Callable], data, *, view: str = "text", protocol: str = "fast", share: float = 1.0, draws: int = 10,
    size: int = 16_384, seed: int = 42,
) -> Evaluation:  # fmt: skip
    """Mini-batch k-means with as many clusters as classes, on the rows as they are; agreement with the classes, level by level.

    Numbers depend on the version of scikit-learn; MTEB's, which are taken on all threads, may differ in the last digits.

    Args:
        encode: functions of the views.
        data: a set with `labelled()`.
        view: that reads its values.
        protocol: `fast` clusters `draws` samples of `size` rows drawn with replacement, batches of 512; `legacy` all rows once,
            batches of 500.
        share: of the values that is drawn before anything is encoded (MTEB's default is 0.04); 1 takes all in their order.
        draws: samples of `fast`.
        size: rows of a sample of `fast`.
        seed: of every draw, and of k-means.

    Returns:
        `v_measure` (primary) and `ami` (corrected for chance, which v is not: it gains from more clusters), means over levels and
        draws, and the deviation of each under `std/`; `v_measure/level_<l>` where there are several; `count/{values,classes}`, the
        classes being those of the last level. A single class is found by definition: 1.

    Raises:
        ConfigError: an unknown protocol, or a share, draws or size out of range.
        ValueError: no value, labels that do not fit, fewer rows in a sample than classes, or embeddings that are not finite.

    Source: Rosenberg and Hirschberg 2007; MTEB 2.26.
    """
    _check_options(protocol, share, draws, size)
    task, rng = data.labelled(), random.Random(seed)
    labels = _check_labels(np.asarray(task.labels), len(task.values))
    chosen = rng.sample(range(len(labels)), k=int(share * len(labels))) if share < 1 else range(len(labels))
    if not len(chosen):
        raise ValueError(f"a share of {share} of {len(labels)} values is none; set config.evals.<label>.options.share higher.")
    rows = metrics.check_rows(encode[view]([task.values[i] for i in chosen]), "embeddings")
    levels = [_agreement(rows, level, protocol, draws, size, seed, rng) for level in labels[list(chosen)].T if (level >= 0).any()]
    every = np.concatenate(levels)  # [levels x draws, 2]
    values = {"v_measure": float(every[:, 0].mean()), "ami": float(every[:, 1].mean())}
    values |= {"std/v_measure": float(every[:, 0].std()), "std/ami": float(every[:, 1].std())}
    if len(levels) > 1:
        values |= {f"v_measure/level_{i}": float(level[:, 0].mean()) for i, level in enumerate(levels)}
    last = labels[list(chosen)][:, -1]
    values |= {"count/values": float(len(rows)), "count/classes": float(len(np.unique(last[last >= 0])))}
    # Of each run of k-means: these tell how much chance there is in the runs, not in the choice of texts.
    return Evaluation("v_measure", values, len(rows), items=every[:, 0])


def _agreement(rows, labels, protocol: str, draws: int, size: int, seed: int, rng: random.Random) -> np.ndarray:
    """(v-measure, AMI) of each run [R 2]."""
    known = labels >= 0
    rows, labels = rows[known], labels[known]
    classes = len(np.unique(labels))
    if protocol == "legacy":
        model, samples = MiniBatchKMeans(classes, batch_size=LEGACY_BATCH, n_init="auto", random_state=seed), [slice(None)]
    else:
        model = MiniBatchKMeans(classes, init="k-means++", batch_size=FAST_BATCH, n_init=1, random_state=seed)
        if size < classes:
            raise ValueError(f"samples of {size} rows for {classes} classes; set config.evals.<label>.options.size to {classes} or more.")
        samples = (rng.choices(range(len(rows)), k=size) for _ in range(draws))
    return np.array(list(_scores(model, rows, labels, samples)))


def _scores(model, rows: np.ndarray, labels: np.ndarray, samples) -> Iterator[tuple[float, float]]:
    for sample in samples:
        # One thread: sums in one order on every machine, and no team of threads for batches this small.
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters: a collapsed model, which scores low
            found = model.fit_predict(rows[sample])
        yield v_measure_score(labels[sample], found), adjusted_mutual_info_score(labels[sample], found)


def _check_options(protocol: str, share: float, draws: int, size: int) -> None:
    key = "config.evals.<label>.options"
    if protocol not in ("fast", "legacy"):
        raise ConfigError(f"{key}.protocol is {protocol!r}; set it to fast or legacy.")
    if not 0 < share <= 1:
        raise ConfigError(f"{key}.share is {share}; set it above 0 and to 1 at most.")
    if min(draws, size) < 1:
        raise ConfigError(f"{key}.draws is {draws} and {key}.size {size}; set both to 1 or more.")


def _check_labels(labels: np.ndarray, values: int) -> np.ndarray:
    """Labels [N L], one column a level."""
    labels = labels[:, None] if labels.ndim == 1 else labels
    if labels.ndim != 2 or len(labels) != values or not values or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels {labels.dtype} of shape {labels.shape} for {values} values; each needs a class, or one for each level.")
    if not (labels >= 0).any():
        raise ValueError(f"none of {values} values has a class.")
    return labels
