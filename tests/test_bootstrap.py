import numpy as np
import pandas as pd
import pytest

from src.bootstrap import clusters_of, multiplicities, resampled_distributions, resampled_rows
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
    distributions = resampled_distributions(rows, times, np.arange(60))
    for distribution, drawn in zip(distributions, resamples, strict=True):
        check(distribution, rows @ rows.T, drawn)


def test_some_of_the_rows_are_resampled_with_the_clusters_of_all(unit_rows):
    """As within a sport: a cluster may be missing from it, and clusters keep their numbers."""
    rows, clusters = unit_rows(60, 8), np.arange(60) % 12
    times, resamples = multiplicities(clusters, 10, seed=0), resampled_rows(clusters, 10, seed=0)
    some = np.flatnonzero(np.isin(clusters, (3, 4, 9)))
    distributions = resampled_distributions(rows[some], times[:, some], np.arange(len(some)))
    for distribution, drawn in zip(distributions, resamples, strict=True):
        check(distribution, rows @ rows.T, drawn[np.isin(drawn, some)])


def test_pairs_of_one_wording_are_left_out_of_every_replicate(unit_rows):
    rows, wordings = unit_rows(30, 8), np.arange(30) % 7
    (distribution,) = resampled_distributions(rows, np.ones((1, 30), np.int64), wordings)
    whole = pairwise_distribution(rows, wordings=wordings)
    assert np.abs(distribution.counts - whole.counts).sum() <= 4  # a cosine on the edge of a bin
    assert distribution.mean == pytest.approx(whole.mean, abs=3e-4)


def test_a_replicate_without_a_pair_has_no_distribution():
    times = np.array([[3, 0, 0], [0, 2, 1]])
    none, one = resampled_distributions(np.eye(3, dtype=np.float32), times, np.arange(3))
    assert none is None  # three copies of one sentence
    assert (one.counts.sum(), one.mean) == (2, pytest.approx(0, abs=2.6e-4))


def test_whole_clusters_are_drawn_with_replacement():
    clusters = np.array([0, 1, 0, 2, 2, 2])
    times = multiplicities(clusters, 1000, seed=0)
    assert (times[:, [0, 1, 3]].sum(1) == 3).all()  # one row of each cluster
    assert np.array_equal(times[:, 0], times[:, 2])
    assert np.allclose(times.mean(0), 1, atol=0.1)
    for drawn, counts in zip(resampled_rows(clusters, 1000, seed=0), times):
        assert np.array_equal(np.bincount(drawn, minlength=6), counts)
    assert not np.array_equal(times, multiplicities(clusters, 1000, seed=1))


def test_what_is_resampled():
    corpus = pd.DataFrame({"sentence": list("abcd"), "sport": list("ssst"), "event": list("eefe")})
    assert clusters_of(corpus).tolist() == [0, 0, 1, 2]  # the event e of another sport is another
    assert clusters_of(corpus.drop(columns="event")).tolist() == [0, 1, 2, 3]  # a sport is not an event
    pairs = pd.DataFrame({"sentence1": list("aabc"), "sentence2": "z"})
    assert clusters_of(pairs).tolist() == [0, 0, 1, 2]
    templates = ["s/e/test/0", "s/f/test/1", "s/e/test/2", "t/e/test/0"]
    assert clusters_of(pairs.assign(template1=templates)).tolist() == [0, 1, 0, 2]
