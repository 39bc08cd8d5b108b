"""The distribution of all pairwise cosines, exact and in blocks: memory does not grow with the number of pairs."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from tqdm import tqdm

BINS = 4000  # of width 0.0005 over [-1, 1]: no quantile is off by more than that
Embeddings = Float[np.ndarray, "n dim"] | sparse.spmatrix | sparse.sparray
BLOCK = 1024  # rows: a block of cosines takes 4 MB, and fits in a cache


@dataclass(frozen=True, eq=False)
class PairwiseDistribution:
    """The cosines of all n(n-1)/2 pairs of n embeddings, as counts in bins of equal width over [-1, 1]."""

    edges: Float[np.ndarray, " edges"]  # one more than there are bins
    counts: Int[np.ndarray, " bins"]
    mean: float  # exact, from sums and not from bins
    std: float

    def quantile(self, q: float) -> float:
        """The cosine that a share q of all pairs stays below; off by at most one bin, 0.0005."""
        cumulative = np.concatenate([[0], np.cumsum(self.counts)])
        return float(np.interp(q * cumulative[-1], cumulative, self.edges))

    @property
    def width(self) -> float:
        """p95 - p5: the range that nine pairs in ten lie in."""
        return self.quantile(0.95) - self.quantile(0.05)

    def summary(self) -> dict[str, float]:
        return {
            "mean": self.mean, "std": self.std, "p5": self.quantile(0.05), "p95": self.quantile(0.95),
            "width": self.width, "pairs": int(self.counts.sum()),
        }  # fmt: skip


def pairwise_distribution(embeddings: Embeddings, progress: bool = False) -> PairwiseDistribution:
    """Exact distribution of the cosines of all pairs i < j of unit rows (numpy array or scipy sparse matrix).

    Mean and second moment come from sums (SCORECARD: (|sum x|^2 - n) / (n(n-1)) and (|X'X|_F^2 - n) / (n(n-1))), in
    float64. Raises `ValueError` for fewer than two rows, NaN, or rows that are not of unit length.
    """
    check_unit_rows(embeddings)
    embeddings = embeddings.tocsr() if sparse.issparse(embeddings) else np.ascontiguousarray(embeddings, np.float32)
    n = embeddings.shape[0]
    counts = np.zeros(BINS, np.int64)
    moments = np.zeros(2)
    with tqdm(total=n * (n - 1) // 2, unit=" pairs", unit_scale=True, disable=not progress, leave=False) as bar:
        for i in range(0, n, BLOCK):
            rows = embeddings[i : i + BLOCK]
            for j in range(i, n, BLOCK):
                cosines = rows @ embeddings[j : j + BLOCK].T
                cosines = cosines.toarray() if sparse.issparse(cosines) else cosines
                cosines = cosines[np.triu_indices(len(cosines), 1)] if i == j else cosines.ravel()
                if sparse.issparse(embeddings):
                    moments += cosines.sum(dtype=np.float64), np.square(cosines).sum(dtype=np.float64)
                positions = ((cosines + 1) * (BINS / 2)).astype(np.int32)
                counts += np.bincount(np.clip(positions, 0, BINS - 1, out=positions), minlength=BINS)
                bar.update(len(positions))
    mean, second = moments / (n * (n - 1) / 2) if sparse.issparse(embeddings) else _moments(embeddings)
    return PairwiseDistribution(
        np.linspace(-1, 1, BINS + 1), counts, float(mean), float(max(second - mean**2, 0) ** 0.5)
    )


def _moments(embeddings: Float[np.ndarray, "n dim"]) -> tuple[float, float]:
    total, gram, squares, fourth = 0, 0, 0, 0
    for i in range(0, len(embeddings), BLOCK):
        rows = embeddings[i : i + BLOCK].astype(np.float64)
        lengths = np.square(rows).sum(1)  # 1 but for rounding, which the small differences below would feel
        total, gram = total + rows.sum(0), gram + rows.T @ rows
        squares, fourth = squares + lengths.sum(), fourth + np.square(lengths).sum()
    pairs = len(embeddings) * (len(embeddings) - 1)
    return (np.square(total).sum() - squares) / pairs, (np.square(gram).sum() - fourth) / pairs


def paired_cosines(first: Embeddings, second: Embeddings) -> Float[np.ndarray, " n"]:
    """Cosine of row i of `first` with row i of `second`, both of unit rows."""
    check_unit_rows(first)
    check_unit_rows(second)
    if sparse.issparse(first):
        return np.asarray(first.multiply(second).sum(1)).ravel()
    return np.einsum("nd,nd->n", first, second)


def check_unit_rows(embeddings: Embeddings) -> None:
    """Raise `ValueError` unless there are two rows or more, all finite and of length 1 (to 1e-3)."""
    if embeddings.shape[0] < 2:
        raise ValueError(f"embeddings of shape {embeddings.shape}: two rows or more are needed")
    squares = embeddings.multiply(embeddings).sum(1) if sparse.issparse(embeddings) else np.square(embeddings).sum(1)
    lengths = np.sqrt(np.asarray(squares, np.float64).ravel())
    if len(wrong := np.flatnonzero(~(np.abs(lengths - 1) < 1e-3))):  # NaN is caught as well
        raise ValueError(f"row {wrong[0]} has length {lengths[wrong[0]]:.4g}, not 1: normalise the embeddings first")
