"""The bootstrap behind every interval: events (or sentences) are drawn with replacement, never pairs."""

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy import sparse

from src.similarity import BINS, PairwiseDistribution

REPLICATES = 200
CLUSTERS = 200  # at most: `resampled_distributions` has a histogram for every two of them


def clusters_of(table: pd.DataFrame) -> Int[np.ndarray, " rows"]:
    """A number for each row, equal in rows that are drawn together: those of one event, or, where events are not known,
    of one (first) sentence."""
    if "template1" in table:  # sport/event/split/number
        names = table["template1"].astype(str).str.rsplit("/", n=2).str[0]
    elif {"sport", "event"} <= set(table):
        names = table["sport"].astype(str) + "/" + table["event"].astype(str)
    else:
        names = table[next(column for column in ("sentence1", "sentence") if column in table)]
    return pd.factorize(names)[0].astype(np.int64)


def multiplicities(
    clusters: Int[np.ndarray, " rows"], replicates: int, seed: int
) -> Int[np.ndarray, "replicates clusters"]:
    """How often each cluster is drawn, when as many as there are are drawn with replacement."""
    count = int(clusters.max()) + 1
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=replicates)


def resampled_rows(
    clusters: Int[np.ndarray, " rows"], replicates: int = REPLICATES, seed: int = 0
) -> list[Int[np.ndarray, " drawn"]]:
    """The rows of each bootstrap replicate: whole clusters, drawn with replacement."""
    rows = np.arange(len(clusters))
    return [np.repeat(rows, times[clusters]) for times in multiplicities(clusters, replicates, seed)]


def join_clusters(clusters: Int[np.ndarray, " rows"], seed: int) -> Int[np.ndarray, " rows"]:
    """At most `CLUSTERS` clusters: where there are more, they are joined at random. This leaves the variance of a mean
    over the replicates as it was, in expectation and but for one part in `CLUSTERS`."""
    if clusters.max() < CLUSTERS:
        return clusters
    # not default_rng(seed): it also shuffles the rows in `score`, and clusters would be joined by their place there
    return (np.random.default_rng([seed, 1]).permutation(clusters.max() + 1) % CLUSTERS)[clusters]


def resampled_distributions(
    embeddings: Float[np.ndarray, "n dim"],
    clusters: Int[np.ndarray, " n"],
    times: Int[np.ndarray, "replicates clusters"],
    wordings: Int[np.ndarray, " n"],
) -> list[PairwiseDistribution | None]:
    """The distribution of each replicate, None where no pair is left in it. Pairs of one wording do not count.

    The pairs between two clusters are counted once, as a histogram. A replicate is a weighted sum of these histograms:
    a pair counts as often as its first cluster was drawn, times as often as its second was. Copies of one sentence are
    not paired.
    """
    first, second = np.nonzero(np.triu(wordings[:, None] != wordings, 1))
    bins = ((embeddings @ embeddings.T + 1) * (BINS / 2)).astype(np.int32).clip(0, BINS - 1)[first, second]
    present, clusters = np.unique(clusters, return_inverse=True)
    times, count = times[:, present].astype(np.float64), len(present)
    two_clusters = clusters[first] * count + clusters[second]
    ones = np.ones(len(bins))
    histograms = sparse.coo_array((ones, (two_clusters, bins)), shape=(count**2, BINS)).tocsr()  # sums equal entries
    weights = (times[:, :, None] * times[:, None, :]).reshape(-1, count**2)
    edges = np.linspace(-1, 1, BINS + 1)
    centres = (edges[1:] + edges[:-1]) / 2
    distributions = []
    for counts in weights @ histograms:
        pairs = counts.sum()
        if not pairs:
            distributions.append(None)
            continue
        mean = float(counts @ centres / pairs)
        std = float(counts @ (centres - mean) ** 2 / pairs) ** 0.5
        distributions.append(PairwiseDistribution(edges, counts.astype(np.int64), mean, std))
    return distributions
