import numpy as np
import pytest

from src.quality import anisotropy, effective_rank, order, rung_auc
from src.similarity import pairwise_distribution


def test_anisotropy_is_the_mean_of_all_pairs(unit_rows):
    rows = unit_rows(50, 7)
    assert anisotropy(rows) == pytest.approx((rows @ rows.T)[np.triu_indices(50, 1)].mean(), abs=1e-6)
    assert anisotropy(rows) == pytest.approx(pairwise_distribution(rows).mean, abs=1e-6)
    assert anisotropy(np.repeat(rows[:1], 9, axis=0)) == pytest.approx(1, abs=1e-5)


def test_effective_rank_of_known_spectra():
    corners = np.vstack([np.eye(6), -np.eye(6)]).astype(np.float32)
    assert effective_rank(corners) == pytest.approx(6)
    line = np.outer(np.linspace(-1, 1, 9), np.eye(6)[0]).astype(np.float32)
    assert effective_rank(line) == pytest.approx(1)
    assert effective_rank(line + 5) == pytest.approx(1, abs=1e-4)  # centred: a common offset is no direction


def test_effective_rank_by_singular_values(unit_rows):
    rows = unit_rows(80, 12)
    values = np.linalg.svd(rows - rows.mean(0), compute_uv=False)
    shares = values / values.sum()
    assert effective_rank(rows) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-4)


def test_order_and_auc_look_only_at_the_grades_named():
    grades = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    cosines = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.4, 0.3, 0.2, 0.1])
    assert order(cosines, grades, (0, 1, 2)) == pytest.approx(0.956, abs=1e-3)
    assert order(cosines, grades, (2, 3, 4)) == pytest.approx(-0.956, abs=1e-3)
    assert [rung_auc(cosines, grades, k) for k in (1, 2, 3, 4)] == [1, 1, 0, 0]


def test_auc_is_the_share_of_pairs_of_pairs():
    rng = np.random.default_rng(0)
    grades, cosines = rng.integers(0, 5, 200), rng.random(200)
    high, low = cosines[grades == 3], cosines[grades == 2]
    assert rung_auc(cosines, grades, 3) == pytest.approx((high[:, None] > low).mean())
