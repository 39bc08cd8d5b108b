"""The distribution of all pairwise cosines, exact and in blocks: memory does not grow with the number of pairs."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from tqdm import tqdm

from src.transforms import Encode

BINS = 4000  # of width 0.0005 over [-1, 1]: no quantile is off by more than that
EDGES = np.linspace(-1, 1, BINS + 1)
CENTRES = (EDGES[1:] + EDGES[:-1]) / 2
Embeddings = Float[np.ndarray, "n dim"]
BLOCK = 1024  # rows: a block of cosines takes 4 MB, and fits in a cache
EXACT_ROWS = 50_000  # up to here all pairs are counted (1.25 thousand million: some ten seconds), above a sample
SAMPLED_PAIRS = 10_000_000


@dataclass(frozen=True, eq=False)
class PairwiseDistribution:
    """The cosines of all n(n-1)/2 pairs of n embeddings, as counts in the bins between `EDGES`."""

    counts: Int[np.ndarray, " bins"]
    mean: float  # exact, from sums and not from bins
    std: float
    sampled: bool = False  # whether the counts are of randomly drawn pairs and not of all

    def quantile(self, q: float) -> float:
        """The cosine that a share q of the counted pairs stays below; off by at most one bin, 0.0005."""
        cumulative = np.concatenate([[0], np.cumsum(self.counts)])
        return float(np.interp(q * cumulative[-1], cumulative, EDGES))

    def share_below(self, cosine: float) -> float:
        """The share of the counted pairs that stays below this cosine: the inverse of `quantile`."""
        cumulative = np.concatenate([[0], np.cumsum(self.counts)])
        return float(np.interp(cosine, EDGES, cumulative) / cumulative[-1])

    def quantile_interval(self, q: float) -> tuple[float, float]:
        """Where the quantile of *all* pairs lies, with a confidence of 95 % for every q at once: the band of Dvoretzky,
        Kiefer and Wolfowitz with Massart's constant (1990). An exact distribution gives the quantile twice."""
        band = math.sqrt(math.log(2 / 0.05) / (2 * self.counts.sum())) if self.sampled else 0.0
        return self.quantile(max(q - band, 0)), self.quantile(min(q + band, 1))

    @property
    def width(self) -> float:
        """p95 - p5: the range that nine pairs in ten lie in."""
        return self.quantile(0.95) - self.quantile(0.05)

    def summary(self) -> dict[str, float]:
        return {
            "mean": self.mean, "std": self.std, "p5": self.quantile(0.05), "p95": self.quantile(0.95),
            "width": self.width, "pairs": int(self.counts.sum()),
        }  # fmt: skip


def pairwise_distribution(
    embeddings: Embeddings,
    sampled_pairs: int | None = None,
    seed: int = 0,
    progress: bool = False,
    wordings: Int[np.ndarray, " n"] | None = None,
) -> PairwiseDistribution:
    """Distribution of the cosines of the pairs i < j of unit rows; pairs of one number in `wordings` are left out.

    Up to `EXACT_ROWS` rows all pairs are counted, on the GPU when there is one; above, 10 million are drawn with the
    seed. `sampled_pairs` asks for another number, and 0 for all pairs. `quantile_interval` says how far a sampled
    quantile may be off.

    Mean and standard deviation are exact either way, in O(n dim^2) and float64, from (|sum x|^2 - n) / (n(n-1)) and
    (|X'X|_F^2 - n) / (n(n-1)).

    Raises `ValueError` for fewer than two rows, NaN, rows that are not of unit length, or when no pair is left.
    """
    check_rows(embeddings, unit=True)
    embeddings = np.ascontiguousarray(embeddings, np.float32)
    n = len(embeddings)
    if sampled_pairs is None:
        sampled_pairs = SAMPLED_PAIRS if n > EXACT_ROWS else 0
    if wordings is None:
        wordings = np.arange(n)  # each its own
    elif len(wordings) != n or len(set(wordings)) < 2:
        raise ValueError(f"{n} embeddings, but {len(wordings)} wordings, {len(set(wordings))} of them different")
    counts, pairs = np.zeros(BINS, np.int64), sampled_pairs or n * (n - 1) // 2
    sampled = _sampled_blocks(embeddings, wordings, sampled_pairs, seed)
    blocks = sampled if sampled_pairs else _all_blocks(embeddings, wordings)
    with tqdm(total=pairs, unit=" pairs", unit_scale=True, disable=not progress, leave=False) as bar:
        for cosines in blocks:
            positions = cosines.add_(1).mul_(BINS / 2).int().clamp_(0, BINS - 1)
            counts += torch.bincount(positions, minlength=BINS).cpu().numpy()
            bar.update(len(positions))
    sums = _pair_sums(embeddings)
    for wording in np.flatnonzero(np.bincount(wordings) > 1):
        sums = sums - _pair_sums(embeddings[wordings == wording])
    mean, second = map(float, sums[1:] / sums[0])
    return PairwiseDistribution(counts, mean, max(second - mean**2, 0) ** 0.5, bool(sampled_pairs))


def within_groups(
    embeddings: Embeddings, groups: Sequence | np.ndarray, wordings: Sequence | np.ndarray | None = None
) -> dict[str, PairwiseDistribution]:
    """The distribution within each group: `groups` names the group of each row, and `wordings`, if given, its wording.
    Pairs of one wording are left out, and so are groups without a pair.

    All pairs are counted while there are no more of them than `EXACT_ROWS` rows would have; above that each group gets
    an equal share of `SAMPLED_PAIRS`."""
    check_rows(embeddings, unit=True)
    if len(groups) != embeddings.shape[0]:
        raise ValueError(f"{embeddings.shape[0]} embeddings, but the groups of {len(groups)}")
    wordings = np.arange(len(groups)) if wordings is None else pd.factorize(np.asarray(wordings))[0]
    by_group = pd.Series(groups).groupby(groups).indices
    members = {name: rows for name, rows in by_group.items() if len(set(wordings[rows])) > 1}
    pairs = {name: len(rows) * (len(rows) - 1) // 2 for name, rows in members.items()}
    exact, share = sum(pairs.values()) <= EXACT_ROWS**2 // 2, -(-SAMPLED_PAIRS // max(len(members), 1))
    sampled = {name: 0 if exact or pairs[name] <= share else share for name in members}
    return {
        str(name): pairwise_distribution(embeddings[rows], sampled[name], wordings=wordings[rows])
        for name, rows in members.items()
    }


def mean_width(within: dict[str, PairwiseDistribution]) -> float:
    """The width among relatively similar sentences: the mean over groups of the width within each."""
    return float(np.mean([distribution.width for distribution in within.values()]))


def _all_blocks(embeddings: Embeddings, wordings: Int[np.ndarray, " n"]) -> Iterator[Float[torch.Tensor, " pairs"]]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows, wordings = torch.from_numpy(embeddings).to(device), torch.from_numpy(wordings).to(device)
    repeats = len(wordings.unique()) < len(wordings)
    for i in range(0, len(rows), BLOCK):
        for j in range(i, len(rows), BLOCK):
            cosines = rows[i : i + BLOCK] @ rows[j : j + BLOCK].T
            if repeats:
                wanted = wordings[i : i + BLOCK, None] != wordings[j : j + BLOCK]
                yield cosines[wanted.triu(1) if i == j else wanted]
            else:
                yield cosines[*torch.triu_indices(len(cosines), len(cosines), 1)] if i == j else cosines.ravel()


def _sampled_blocks(
    embeddings: Embeddings, wordings: Int[np.ndarray, " n"], pairs: int, seed: int
) -> Iterator[Float[torch.Tensor, " pairs"]]:
    rng, n = np.random.default_rng(seed), embeddings.shape[0]
    for start in range(0, pairs, 64 * BLOCK):
        first = rng.integers(0, n, min(64 * BLOCK, pairs - start))
        second = (first + rng.integers(1, n, len(first))) % n  # any other row, all equally likely
        wanted = wordings[first] != wordings[second]
        yield torch.from_numpy(np.einsum("nd,nd->n", embeddings[first[wanted]], embeddings[second[wanted]]))


def _pair_sums(embeddings: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "3"]:
    """Over the pairs i < j: how many there are, the sum of their cosines, and that of the squares."""
    total, gram, squares, fourth = 0, 0, 0, 0
    for i in range(0, len(embeddings), BLOCK):
        rows = embeddings[i : i + BLOCK].astype(np.float64)
        lengths = np.square(rows).sum(1)  # 1 but for rounding, which the small differences below would feel
        total, gram = total + rows.sum(0), gram + rows.T @ rows
        squares, fourth = squares + lengths.sum(), fourth + np.square(lengths).sum()
    pairs = len(embeddings) * (len(embeddings) - 1)
    return np.array([pairs, np.square(total).sum() - squares, np.square(gram).sum() - fourth]) / 2


def paired_cosines(first: Embeddings, second: Embeddings) -> Float[np.ndarray, " n"]:
    """Cosine of row i of `first` with row i of `second`, both of unit rows."""
    check_rows(first, unit=True)
    check_rows(second, unit=True)
    if first.shape != second.shape:
        raise ValueError(f"embeddings of shape {first.shape} and of shape {second.shape} are not paired row by row")
    return np.einsum("nd,nd->n", first, second)


def cosines_of_pairs(encode: Encode, pairs: pd.DataFrame) -> Float[np.ndarray, " pairs"]:
    """Cosine of `sentence1` and `sentence2` in each row of a table of pairs."""
    return paired_cosines(encode(pairs["sentence1"].tolist()), encode(pairs["sentence2"].tolist()))


def check_rows(embeddings, unit: bool = False) -> None:
    """Raise `ValueError` unless this is an array of floating-point numbers of shape (n, dim), n two or more, with no
    NaN or infinity, and with `unit` each row of length 1 (to 1e-3). The error says what it is instead."""
    if not isinstance(embeddings, np.ndarray):
        raise ValueError(f"embeddings are a {type(embeddings).__name__}: a numpy array of shape (n, dim) is needed")
    if embeddings.ndim != 2:
        raise ValueError(f"embeddings of shape {embeddings.shape}: one row a sentence is needed, shape (n, dim)")
    if not np.issubdtype(embeddings.dtype, np.floating):
        raise ValueError(f"embeddings of type {embeddings.dtype}: floating-point numbers are needed")
    if embeddings.shape[0] < 2:
        raise ValueError(f"embeddings of shape {embeddings.shape}: two rows or more are needed")
    dtype = np.promote_types(embeddings.dtype, np.float32)
    lengths = np.sqrt(np.einsum("nd,nd->n", embeddings, embeddings, dtype=dtype))
    if len(wrong := np.flatnonzero(~np.isfinite(lengths))):
        raise ValueError(f"row {wrong[0]} has length {lengths[wrong[0]]}: there is NaN or infinity in it")
    if unit and len(wrong := np.flatnonzero(np.abs(lengths - 1) >= 1e-3)):
        raise ValueError(f"row {wrong[0]} has length {lengths[wrong[0]]:.4g}, not 1: normalise the embeddings first")
