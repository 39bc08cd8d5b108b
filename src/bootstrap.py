"""The bootstrap behind every interval: events (or sentences) are drawn with replacement, never pairs."""

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from src.similarity import BINS, CENTRES, PairwiseDistribution

REPLICATES = 200


def clusters_of(table: pd.DataFrame) -> Int[np.ndarray, " rows"]:
    """A number for each row, equal in rows that are drawn together: those of one event, or, where events are not known,
    of one (first) sentence."""
    if "template1" in table:  # sport/event/split/register
        names = table["template1"].astype(str).str.rsplit("/", n=2).str[0]
    elif {"sport", "event"} <= set(table):
        names = table["sport"].astype(str) + "/" + table["event"].astype(str)
    else:
        names = table[next(column for column in ("sentence1", "sentence") if column in table)]
    return pd.factorize(names)[0].astype(np.int64)


def multiplicities(
    clusters: Int[np.ndarray, " rows"], replicates: int, seed: int
) -> Int[np.ndarray, "replicates rows"]:
    """How often each row is drawn: whole clusters, as many as there are, with replacement."""
    count = int(clusters.max()) + 1
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=replicates)
    return times[:, clusters]


def resampled_rows(
    clusters: Int[np.ndarray, " rows"], replicates: int = REPLICATES, seed: int = 0
) -> list[Int[np.ndarray, " drawn"]]:
    """The rows of each bootstrap replicate: whole clusters, drawn with replacement."""
    rows = np.arange(len(clusters))
    return [np.repeat(rows, times) for times in multiplicities(clusters, replicates, seed)]


def resampled_distributions(
    embeddings: Float[np.ndarray, "n dim"], times: Int[np.ndarray, "replicates n"], wordings: Int[np.ndarray, " n"]
) -> list[PairwiseDistribution | None]:
    """The distribution of each replicate, in which row i is drawn `times[:, i]` times; None where it has no pair.

    A pair counts as often as its first row was drawn, multiplied by how often its second was. Pairs of one wording do
    not count, nor do pairs of two copies of one row.
    """
    first, second = np.nonzero(np.triu(wordings[:, None] != wordings, 1))
    bins = ((embeddings @ embeddings.T + 1) * (BINS / 2)).astype(np.int32).clip(0, BINS - 1)[first, second]
    distributions = []
    for drawn in times.astype(np.float64):
        counts = np.bincount(bins, drawn[first] * drawn[second], BINS)
        if not counts.any():
            distributions.append(None)
            continue
        mean = np.average(CENTRES, weights=counts)
        std = np.average((CENTRES - mean) ** 2, weights=counts) ** 0.5
        distributions.append(PairwiseDistribution(counts.astype(np.int64), float(mean), float(std)))
    return distributions
