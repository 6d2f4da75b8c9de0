"""Label-free diagnostics of a set of embeddings, float64 throughout.

What they are for: a model can keep its loss while its embeddings collapse, drift apart by modality, or use few dimensions.
Rows are unit vectors [N d] unless said otherwise; all of them ignore a common rotation.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from evals import metrics

BLOCK_ROWS = 1024


def alignment(x: np.ndarray, y: np.ndarray, *, power: float = 2.0) -> float:
    """Mean distance of positive pairs (x[i], y[i]) to a power.

    Source: Wang and Isola 2020, arXiv:2005.10242.
    """
    return float(np.mean(np.linalg.norm(_wide(x) - _wide(y), axis=1) ** power))


def uniformity(x: np.ndarray, *, t: float = 2.0) -> float:
    """Log of the mean over distinct pairs of exp(-t * squared distance): 0 when all rows are equal, never under -4 t.

    Source: Wang and Isola 2020, arXiv:2005.10242.

    Raises:
        ValueError: fewer than two rows.
    """
    x = _wide(x)
    total = sum(np.exp(-t * _squared_distances(x, start)).sum() for start in range(0, len(x), BLOCK_ROWS))
    return float(np.log((total - len(x)) / _pairs(x)))


def mean_cosine(x: np.ndarray) -> float:
    """Mean cosine of distinct rows: 1 when all are equal, near 0 when they fill the sphere.

    Raises:
        ValueError: fewer than two rows.
    """
    x = _wide(x)
    return float((np.sum(x.sum(axis=0) ** 2) - np.sum(x**2)) / _pairs(x))


def modality_gap(x: np.ndarray, y: np.ndarray) -> float:
    """Distance between the centroids of two modalities, 0 to 2.

    Source: Liang et al. 2022, arXiv:2203.02053.
    """
    return float(np.linalg.norm(_wide(x).mean(axis=0) - _wide(y).mean(axis=0)))


def shift(x: np.ndarray, y: np.ndarray, amount: float) -> tuple[np.ndarray, np.ndarray]:
    """Both modalities moved towards each other by a share of half their gap each, and scaled to length 1 again.

    Args:
        x: rows [N d].
        y: rows [M d].
        amount: 0 moves nothing, 1 brings the centroids together (but for the scaling), below 0 widens the gap.

    Source: Liang et al. 2022, arXiv:2203.02053.

    Raises:
        ValueError: a row that ends at 0.
    """
    x, y = _wide(x), _wide(y)
    step = amount * (x.mean(axis=0) - y.mean(axis=0)) / 2
    return metrics.unit(x - step, "first rows, moved"), metrics.unit(y + step, "second rows, moved")


def modality_accuracy(x: np.ndarray, y: np.ndarray, *, seed: int = 0) -> float:
    """Share of rows whose modality a linear probe tells that learnt from the other half of each: 0.5 for equal clouds.

    Both modalities weigh the same, however many rows they have. Halves are drawn by the seed; C = 1 in scikit-learn's terms.
    """
    rows, label = np.concatenate([_wide(x), _wide(y)]), np.repeat([0, 1], [len(x), len(y)])
    rng = np.random.default_rng(seed)
    half = np.concatenate([rng.permutation(len(side)) % 2 for side in (x, y)])
    right = np.empty(len(rows))
    for side in (0, 1):
        with threadpool_limits(1):  # as in evals/probes.py
            model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(rows[half != side], label[half != side])
        right[half == side] = model.predict(rows[half == side]) == label[half == side]
    return float((right[label == 0].mean() + right[label == 1].mean()) / 2)


def partition_isotropy(x: np.ndarray) -> float:
    """Least over greatest Z(c) = sum_i exp(c . x_i), c over both directions of the eigenvectors of X^T X: 1 is isotropic.

    The paper leaves the sign of an eigenvector open; both are looked at, so that the number does not depend on it.

    Source: Mu and Viswanath 2018, arXiv:1702.01417, after Arora et al. 2016.
    """
    x = _wide(x)
    along = x @ np.linalg.eigh(x.T @ x)[1]
    sums = np.concatenate([np.exp(along).sum(axis=0), np.exp(-along).sum(axis=0)])
    return float(sums.min() / sums.max())


def effective_rank_covariance(x: np.ndarray) -> float:
    """Exponential of the entropy of the variances along the principal directions, 1 to d; 0 where all rows are equal.

    Another number than `effective_rank`: rows are centred, and variances are squares of singular values.
    """
    x = _wide(x)
    variances = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2
    if variances.sum() <= x.shape[1] * np.finfo(float).eps * np.sum(x**2):  # equal up to rounding
        return 0.0
    share = variances[variances > 0] / variances.sum()
    return float(np.exp(-np.sum(share * np.log(share))))


def effective_rank(x: np.ndarray, *, epsilon: float = 0.0) -> float:
    """Exponential of the entropy of the singular values of x, not centred: 1 to d.

    Args:
        x: rows [N d], any length; use at least 10 d of them, fewer bound it by N.
        epsilon: added to each share before the entropy; 1e-7 gives RankMe.

    Source: Roy and Vetterli 2007; RankMe: Garrido et al. 2023, arXiv:2210.02885.
    """
    singular = np.linalg.svd(_wide(x), compute_uv=False)
    share = singular / singular.sum() + epsilon
    share = share[share > 0]
    return float(np.exp(-np.sum(share * np.log(share))))


def isoscore(x: np.ndarray) -> float:
    """How evenly variance is spread over dimensions: 0 for none or one direction, 1 for equal variances.

    Args:
        x: rows [N d] of any length with d > 1; with N < d the score depends on N.

    Source: Rudman et al. 2022, arXiv:2108.07344.
    """
    x = _wide(x)
    width = x.shape[1]
    variances = np.linalg.eigvalsh(np.cov(x, rowvar=False)).clip(min=0)
    if variances.max() <= np.finfo(float).eps * np.mean(x**2):  # all rows equal up to rounding
        return 0.0
    scaled = variances * np.sqrt(width) / np.linalg.norm(variances)
    defect = np.linalg.norm(scaled - 1) / np.sqrt(2 * (width - np.sqrt(width)))
    return float(((width - defect**2 * (width - np.sqrt(width))) ** 2 - width) / (width * (width - 1)))


def _wide(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, np.float64)


def _pairs(x: np.ndarray) -> int:
    if len(x) < 2:
        raise ValueError(f"{len(x)} rows have no distinct pair; give two or more.")
    return len(x) * (len(x) - 1)


def _squared_distances(x: np.ndarray, start: int) -> np.ndarray:
    block = x[start : start + BLOCK_ROWS]
    squared = np.sum(block**2, axis=1)[:, None] + np.sum(x**2, axis=1) - 2 * block @ x.T
    return squared.clip(min=0)  # a self-pair's is 0 up to 1e-15, so that subtracting N removes them all
