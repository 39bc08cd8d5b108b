import re

import jaxtyping
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src import similarity
from src.quality import effective_rank
from src.similarity import (
    EDGES,
    check_rows,
    cosines_of_pairs,
    mean_width,
    paired_cosines,
    pairwise_distribution,
    within_groups,
)


def naive(rows):
    return (rows @ rows.T)[np.triu_indices(len(rows), 1)]


@settings(deadline=None)
@given(st.integers(2, 60), st.integers(2, 20), st.integers(0, 99), st.integers(3, 70))
def test_equals_the_naive_way_whatever_the_blocks(n, dim, seed, block):
    rows = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32) + 0.3
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = naive(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarity, "BLOCK", block)
        distribution = pairwise_distribution(rows)
        assert distribution.counts.sum() == n * (n - 1) // 2
        expected = np.histogram(np.clip(cosines, -1, 1), EDGES)[0]
        moved = np.abs(np.cumsum(distribution.counts) - np.cumsum(expected)).max()
        assert moved <= 1 + n * (n - 1) // 200  # rounding may put a cosine on the other side of an edge
        assert distribution.mean == pytest.approx(cosines.mean(dtype=float), abs=1e-6)
        assert distribution.std**2 == pytest.approx(cosines.var(dtype=float), abs=1e-7)


def test_quantiles_are_within_the_stated_error(unit_rows):
    rows = unit_rows(700, 16)
    distribution, cosines = pairwise_distribution(rows), naive(rows)
    for q in (0.001, 0.05, 0.5, 0.95, 0.999):
        assert abs(distribution.quantile(q) - np.quantile(cosines, q)) <= 0.0005
    assert distribution.width == pytest.approx(np.diff(np.quantile(cosines, [0.05, 0.95]))[0], abs=0.001)


def test_the_diagonal_is_left_out():
    distribution = pairwise_distribution(np.eye(40, dtype=np.float32))
    assert distribution.counts[similarity.BINS // 2] == distribution.counts.sum() == 780
    assert (distribution.mean, distribution.std) == (0, 0)


def test_equal_rows_fall_into_the_last_bin(unit_rows):
    rows = np.repeat(unit_rows(1, 384), 50, axis=0)
    assert pairwise_distribution(rows).counts[-1] == 1225


def test_memory_does_not_grow_with_the_number_of_pairs(unit_rows):
    """No block of cosines has more than two million, however many rows there are: 8 MB in float32."""
    rows = unit_rows(3000, 8)
    sizes = [len(cosines) for cosines in similarity._all_blocks(rows, np.arange(3000))]
    assert sum(sizes) == 3000 * 2999 // 2
    assert max(sizes) <= 2_000_000
    assert max(len(cosines) for cosines in similarity._sampled_blocks(rows, np.arange(3000), 3_000_000, 0)) <= 100_000


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.ones((1, 4), np.float32) / 2, "two rows or more"),
        (np.ones((3, 4), np.float32), "row 0 has length 2, not 1"),
        (np.array([[1, 0], [0, 0]], np.float32), "row 1 has length 0, not 1"),
        (np.array([[1, 0], [np.nan, 0]], np.float32), "row 1 has length nan"),
    ],
)
def test_bad_rows_are_named(rows, message):
    with pytest.raises(ValueError, match=message):
        pairwise_distribution(rows)
    with pytest.raises(ValueError, match=message):
        paired_cosines(rows, rows)
    with pytest.raises(ValueError, match=message):
        within_groups(rows, ["a"] * len(rows))


ROW = np.array([1, 0], np.float32)
SURPRISES = {
    "shape (2,): one row a sentence": ROW,
    "shape (1, 2, 2): one row a sentence": np.eye(2, dtype=np.float32)[None],
    "are a list: a numpy array": [[1.0, 0.0], [0.0, 1.0]],
    "of type int64: floating-point": np.eye(2, dtype=np.int64),
    "of type int8: floating-point": np.diag([127, 127]).astype(np.int8),  # squares overflow to 1
    "of type object: floating-point": np.array([[1, 0], [None, 1]], object),
    "row 1 has length inf": np.array([ROW, [np.inf, 0]], np.float32),
    "shape (1, 2): two rows or more": ROW[None],
    "shape (0, 2): two rows or more": np.zeros((0, 2), np.float32),
}


@pytest.mark.parametrize(("message", "rows"), SURPRISES.items())
def test_shape_and_dtype_surprises_are_named(message, rows):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_rows(rows, unit=True)


@pytest.mark.parametrize(("message", "rows"), SURPRISES.items())
@pytest.mark.parametrize(
    "measure",
    [
        pairwise_distribution,
        lambda rows: paired_cosines(rows, rows),
        lambda rows: within_groups(rows, ["a"] * len(rows)),
        effective_rank,
    ],
)
def test_the_same_without_a_type_checker(monkeypatch, measure, message, rows):
    """A user has no beartype between the call and the message."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=re.escape(message)):
        measure(rows)


def test_rows_that_are_not_paired_are_named(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(2, 4\)"):
        paired_cosines(np.eye(3, 4, dtype=np.float32), np.eye(2, 4, dtype=np.float32))


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_other_precisions(unit_rows, dtype):
    rows = unit_rows(300, 64)
    single, other = pairwise_distribution(rows), pairwise_distribution(rows.astype(dtype))
    assert other.width == pytest.approx(single.width, abs=0.001)
    assert other.mean == pytest.approx(single.mean, abs=1e-4)


def test_share_below_is_the_inverse_of_the_quantile(unit_rows):
    distribution = pairwise_distribution(unit_rows(200, 8))
    for q in (0.05, 0.5, 0.95):
        assert distribution.share_below(distribution.quantile(q)) == pytest.approx(q, abs=1e-6)
    assert (distribution.share_below(-1.0), distribution.share_below(1.0)) == (0, 1)


def test_paired_cosines(unit_rows):
    first, second = unit_rows(9, 5), unit_rows(9, 5, seed=1)
    expected = [a @ b for a, b in zip(first, second)]
    assert np.allclose(paired_cosines(first, second), expected, atol=1e-6)


def test_cosines_of_pairs(unit_rows):
    rows = dict(zip("abcd", unit_rows(4, 5)))
    pairs = pd.DataFrame({"sentence1": ["a", "c", "a"], "sentence2": ["b", "d", "a"]})
    cosines = cosines_of_pairs(lambda sentences: np.array([rows[sentence] for sentence in sentences]), pairs)
    assert np.allclose(cosines, [rows["a"] @ rows["b"], rows["c"] @ rows["d"], 1], atol=1e-6)


def test_a_sample_of_pairs_says_how_far_off_it_may_be(unit_rows):
    rows = unit_rows(900, 16)
    exact, sampled = pairwise_distribution(rows), pairwise_distribution(rows, sampled_pairs=100_000, seed=3)
    assert sampled.counts.sum() == 100_000
    assert (sampled.mean, sampled.std) == (exact.mean, exact.std)  # exact either way
    for q in (0.05, 0.5, 0.95):
        low, high = sampled.quantile_interval(q)
        assert low <= exact.quantile(q) <= high
        assert 0 < high - low < 0.03
        assert exact.quantile_interval(q) == (exact.quantile(q),) * 2
    again, other = (pairwise_distribution(rows, sampled_pairs=100_000, seed=seed) for seed in (3, 4))
    assert (again.counts == sampled.counts).all()
    assert (other.counts != sampled.counts).any()


def test_sampled_are_pairs_of_different_rows():
    assert pairwise_distribution(np.eye(5, dtype=np.float32), sampled_pairs=5000).counts[similarity.BINS // 2] == 5000


def test_many_rows_are_sampled_unless_all_are_asked_for(unit_rows, monkeypatch):
    monkeypatch.setattr(similarity, "EXACT_ROWS", 50)
    monkeypatch.setattr(similarity, "SAMPLED_PAIRS", 777)
    rows = unit_rows(60, 4)
    assert pairwise_distribution(rows).counts.sum() == 777
    assert pairwise_distribution(rows, sampled_pairs=0).counts.sum() == 1770
    assert not pairwise_distribution(rows[:50]).sampled


def test_within_groups(unit_rows):
    rows, groups = unit_rows(30, 8), np.repeat(["a", "b", "alone"], [20, 9, 1])
    within = within_groups(rows, groups)
    assert {name: int(d.counts.sum()) for name, d in within.items()} == {"a": 190, "b": 36}
    assert within["a"].mean == pytest.approx(naive(rows[:20]).mean(), abs=1e-6)
    assert mean_width(within) == pytest.approx((within["a"].width + within["b"].width) / 2)
    assert within_groups(rows, np.arange(30)) == {}
    with pytest.raises(ValueError, match="30 embeddings, but the groups of 2"):
        within_groups(rows, ["a", "b"])


@pytest.mark.parametrize("sampled_pairs", [0, 200_000])
def test_pairs_of_one_wording_are_left_out(unit_rows, sampled_pairs):
    rows, wordings = unit_rows(1_100, 8), np.arange(1_100) % 5  # more than a block
    first, second = np.nonzero(np.triu(wordings[:, None] != wordings, 1))
    cosines = np.einsum("nd,nd->n", rows[first], rows[second])
    apart = pairwise_distribution(rows, sampled_pairs, wordings=wordings)
    assert apart.mean == pytest.approx(cosines.mean(), abs=1e-6)
    assert apart.std == pytest.approx(cosines.std(), abs=1e-6)
    assert apart.width == pytest.approx(np.quantile(cosines, 0.95) - np.quantile(cosines, 0.05), abs=0.01)
    assert sampled_pairs or apart.counts.sum() == len(cosines)
    within = within_groups(rows, np.repeat(["a", "b", "one wording"], [600, 450, 50]), [*wordings[:1_050], *[0] * 50])
    assert set(within) == {"a", "b"}
    assert int(within["a"].counts.sum()) == 600 * 480 // 2
    with pytest.raises(ValueError, match="3 embeddings, but 3 wordings, 1 of them different"):
        pairwise_distribution(rows[:3], wordings=np.zeros(3, np.int64))


def test_groups_with_too_many_pairs_share_a_sample(unit_rows, monkeypatch):
    rows, groups = unit_rows(60, 8), np.repeat(["a", "b", "c"], [40, 15, 5])
    exact = within_groups(rows, groups)
    assert not any(d.sampled for d in exact.values())
    monkeypatch.setattr(similarity, "EXACT_ROWS", 30)
    monkeypatch.setattr(similarity, "SAMPLED_PAIRS", 300)
    within = within_groups(rows, groups)
    assert {name: (int(d.counts.sum()), d.sampled) for name, d in within.items()} == {
        "a": (100, True), "b": (100, True), "c": (10, False),
    }  # fmt: skip
    assert {name: d.mean for name, d in within.items()} == {name: d.mean for name, d in exact.items()}
