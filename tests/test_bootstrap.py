import numpy as np
import pandas as pd
import pytest

from src.bootstrap import (
    CLUSTERS,
    clusters_of,
    join_clusters,
    multiplicities,
    resampled_distributions,
    resampled_rows,
)
from src.scoring import score
from src.similarity import BINS, pairwise_distribution


def check(distribution, cosines, drawn):
    """Against a resample that is built sentence by sentence, and whose pairs are those of two different sentences."""
    first, second = drawn[np.array(np.triu_indices(len(drawn), 1))]
    expected = cosines[first, second][first != second]
    assert distribution.counts.sum() == len(expected)
    assert distribution.mean == pytest.approx(expected.mean(), abs=2.6e-4)  # half a bin
    assert distribution.std == pytest.approx(expected.std(), abs=1e-4)
    bins_moved = np.abs(np.cumsum(distribution.counts - np.histogram(expected, BINS, (-1, 1))[0])).sum()
    assert bins_moved < 0.05 * len(expected)  # by rounding, a pair may fall into the next bin


def test_resampled_distributions_are_those_of_explicit_resamples(unit_rows):
    rows, clusters = unit_rows(60, 8), np.random.default_rng(0).integers(0, 12, 60)
    times, resamples = multiplicities(clusters, 20, seed=0), resampled_rows(clusters, 20, seed=0)
    assert times.max() >= 3  # the pairs within a cluster count three times three
    distributions = resampled_distributions(rows, clusters, times, np.arange(60))
    for distribution, drawn in zip(distributions, resamples, strict=True):
        check(distribution, rows @ rows.T, drawn)


def test_some_of_the_rows_are_resampled_with_the_clusters_of_all(unit_rows):
    """As within a sport: a cluster may be missing from it, and clusters keep their numbers."""
    rows, clusters = unit_rows(60, 8), np.arange(60) % 12
    times, resamples = multiplicities(clusters, 10, seed=0), resampled_rows(clusters, 10, seed=0)
    some = np.flatnonzero(np.isin(clusters, (3, 4, 9)))
    distributions = resampled_distributions(rows[some], clusters[some], times, np.arange(len(some)))
    for distribution, drawn in zip(distributions, resamples, strict=True):
        check(distribution, rows @ rows.T, drawn[np.isin(drawn, some)])


def test_pairs_of_one_wording_are_left_out_of_every_replicate(unit_rows):
    rows, wordings = unit_rows(30, 8), np.arange(30) % 7
    (distribution,) = resampled_distributions(rows, np.arange(30), np.ones((1, 30), np.int64), wordings)
    whole = pairwise_distribution(rows, wordings=wordings)
    assert np.abs(distribution.counts - whole.counts).sum() <= 4  # a cosine on the edge of a bin
    assert distribution.mean == pytest.approx(whole.mean, abs=3e-4)


def test_a_replicate_without_a_pair_has_no_distribution():
    times = np.array([[3, 0, 0], [0, 2, 1]])
    none, one = resampled_distributions(np.eye(3, dtype=np.float32), np.arange(3), times, np.arange(3))
    assert none is None  # three copies of one sentence
    assert (one.counts.sum(), one.mean) == (2, pytest.approx(0, abs=2.6e-4))


def test_whole_clusters_are_drawn_with_replacement():
    clusters = np.array([0, 1, 0, 2, 2, 2])
    times = multiplicities(clusters, 1000, seed=0)
    assert (times.sum(1) == 3).all()
    assert np.allclose(times.mean(0), 1, atol=0.1)
    for drawn, counts in zip(resampled_rows(clusters, 1000, seed=0), times):
        assert np.array_equal(np.bincount(drawn, minlength=6), counts[clusters])
    assert not np.array_equal(times, multiplicities(clusters, 1000, seed=1))


def test_what_is_resampled():
    corpus = pd.DataFrame({"sentence": list("abcd"), "sport": list("ssst"), "event": list("eefe")})
    assert clusters_of(corpus).tolist() == [0, 0, 1, 2]  # the event e of another sport is another
    assert clusters_of(corpus.drop(columns="event")).tolist() == [0, 1, 2, 3]  # a sport is not an event
    pairs = pd.DataFrame({"sentence1": list("aabc"), "sentence2": "z"})
    assert clusters_of(pairs).tolist() == [0, 0, 1, 2]
    templates = ["s/e/test/0", "s/f/test/1", "s/e/test/2", "t/e/test/0"]
    assert clusters_of(pairs.assign(template1=templates)).tolist() == [0, 1, 0, 2]


def test_clusters_are_joined_whole():
    few = np.arange(CLUSTERS)
    assert np.array_equal(join_clusters(few, seed=0), few)
    many = np.repeat(np.arange(2 * CLUSTERS + 3), 3)
    joined = join_clusters(many, seed=0)
    assert all(len(set(joined[many == cluster])) == 1 for cluster in range(2 * CLUSTERS + 3))
    assert set(np.bincount(joined) // 3) == {2, 3}
    assert len(np.bincount(joined)) == CLUSTERS


@pytest.mark.parametrize("seed", [0, 1])
def test_joined_clusters_leave_the_spread_as_it_was(seed):
    """Of a corpus sorted by what its sentences are about: neighbours must not be shared out evenly."""
    rng, n = np.random.default_rng(seed), 5 * CLUSTERS
    rows = rng.standard_normal((n, 16)) + np.repeat(rng.standard_normal((10, 16)), n // 10, axis=0)
    rows[:, 0] += np.linspace(0, 6, n)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    corpus = pd.DataFrame({"sentence": [str(row) for row in range(n)]})
    card = score("sorted", lambda sentences: rows[[int(s) for s in sentences]], corpus, replicates=400, seed=seed)
    times = multiplicities(np.arange(n), 400, seed=7)  # of single sentences

    def mean_over_pairs(values):
        copies = np.square(times)  # of one sentence, which are not paired
        total = ((times @ values) * times).sum(1) - copies @ np.diag(values)
        return total / (np.square(times.sum(1)) - copies.sum(1))

    means = mean_over_pairs(rows @ rows.T)
    stds = np.sqrt(mean_over_pairs(np.square(rows @ rows.T)) - np.square(means))
    assert card.replicates["mean"].std() == pytest.approx(means.std(), rel=0.25)
    assert card.replicates["std"].std() == pytest.approx(stds.std(), rel=0.25)
