import numpy as np
import pytest
from scipy.spatial.distance import pdist
from sklearn.metrics import roc_auc_score, roc_curve

from src.quality import (
    alignment,
    auc,
    effective_rank,
    order,
    recalls,
    rung_auc,
    uniformity,
    word_overlap,
)
from src.similarity import paired_cosines, pairwise_distribution


def test_effective_rank_of_known_spectra():
    corners = np.vstack([np.eye(6), -np.eye(6)]).astype(np.float32)
    assert effective_rank(corners) == pytest.approx(6)
    line = np.outer(np.linspace(-1, 1, 9), np.eye(6)[0]).astype(np.float32)
    assert effective_rank(line) == pytest.approx(1)
    assert effective_rank(line + 5) == pytest.approx(1, abs=1e-4)  # centred: a common offset is no direction


@pytest.mark.parametrize("shape", [(80, 12), (12, 80)])
def test_effective_rank_by_singular_values(unit_rows, shape):
    rows = unit_rows(*shape)
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


def test_auc_counts_an_equal_cosine_half():
    rng = np.random.default_rng(0)
    higher, lower = rng.integers(2, 9, 40) / 10, rng.integers(0, 7, 60) / 10
    assert auc(higher, lower) == pytest.approx(roc_auc_score([1] * 40 + [0] * 60, [*higher, *lower]))


def test_order_is_undefined_for_constant_cosines():
    with pytest.raises(ValueError, match="equal cosines"):
        order(np.ones(6), np.array([0, 0, 1, 1, 2, 2]))
    with pytest.raises(ValueError, match="equal grades"):
        order(np.arange(3.0), np.array([1, 1, 1]))


GRADES = np.array([0, 0, 1, 1, 2, 2])


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (lambda: order(np.array([0.1, 0.2, np.nan, 0.4, 0.5, 0.6]), GRADES), "the cosine of pair 2 is nan"),
        (lambda: rung_auc(np.array([0.1, 0.2, 0.3, np.inf, 0.5, 0.6]), GRADES, 1), "none of them NaN"),
        (lambda: rung_auc(np.arange(6.0), GRADES, 3), "no AUC of 0 above 2 cosines"),
        (lambda: auc(np.array([np.nan]), np.array([0.1])), "none of them NaN"),
        (lambda: alignment(np.zeros(0)), "no pairs"),
        (lambda: effective_rank(np.full((4, 3), 0.5)), "all 4 rows are equal"),
        (lambda: effective_rank(np.array([[0.1, np.nan], [0.1, 0.2]])), "row 0 has length nan"),
    ],
)
def test_where_a_measure_is_undefined_it_says_so(measure, message):
    with pytest.raises(ValueError, match=message):
        measure()


def test_a_monotone_map_changes_no_order():
    rng = np.random.default_rng(0)
    grades = np.tile(np.arange(5), 60)
    cosines = rng.normal(0.1 * grades, 0.2)
    for change in (lambda c: np.tanh(5 * c), lambda c: np.searchsorted(np.sort(c), c) / len(c)):
        assert order(change(cosines), grades) == pytest.approx(order(cosines, grades), abs=1e-12)
        assert rung_auc(change(cosines), grades, 2) == pytest.approx(rung_auc(cosines, grades, 2), abs=1e-12)


def test_alignment_and_uniformity_by_distances(unit_rows):
    first, second = unit_rows(200, 8), unit_rows(200, 8, seed=1)
    assert alignment(paired_cosines(first, second)) == pytest.approx(np.square(first - second).sum(1).mean(), rel=1e-5)
    expected = np.log(np.exp(-2 * pdist(first, "sqeuclidean")).mean())
    assert uniformity(pairwise_distribution(first)) == pytest.approx(expected, abs=1e-3)
    assert uniformity(pairwise_distribution(np.repeat(first[:1], 5, 0))) == pytest.approx(0, abs=1e-3)


def test_word_overlap():
    train = ["a goal in the first half", "the second half of the match", "a serve out of the court"]
    first = ["the goal in the half", "serve and court", "goal", "!"]
    second = ["the goal in the half", "match of half", "zzz", "goal"]
    similarities = word_overlap(train, first, second)
    assert list(similarities) == ["word TF-IDF", "character 3-5-gram TF-IDF", "Jaccard"]
    for values in similarities.values():
        assert values[0] == pytest.approx(1)
        assert values[3] == 0
        assert ((values >= 0) & (values <= 1 + 1e-9)).all()
    assert similarities["Jaccard"][2] == similarities["word TF-IDF"][2] == 0
    assert word_overlap(train, ["goal in goal"], ["goal out"])["Jaccard"] == pytest.approx(1 / 3)


def test_recall_at_a_threshold_of_other_pairs():
    cosines, related = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4]), np.array([1, 1, 0, 1, 0, 0], bool)
    cosines, related = np.tile(cosines, 40), np.tile(related, 40)
    judged = np.array([0.85, 0.75, 0.65, 0.1])
    # no unrelated pair reaches 0.8; down to 0.6 one of three does, and all related ones: a precision of 3/4
    assert recalls(cosines, related, judged) == {
        "recall_at_precision[0.9]": 0.25, "recall_at_fpr[0.05]": 0.25, "recall_at_fpr[0.01]": 0.25
    }  # fmt: skip
    # with ten times as many unrelated pairs the classes still weigh the same
    many, labels = np.repeat(cosines, np.where(related, 1, 10)), np.repeat(related, np.where(related, 1, 10))
    assert recalls(many, labels, judged) == recalls(cosines, related, judged)
    assert recalls(5 * cosines - 1, related, 5 * judged - 1) == recalls(cosines, related, judged)
    assert set(recalls(cosines, ~related, judged).values()) == {0.0}  # no threshold will do
    perfect = np.where(related, 1.0, 0.0)
    assert set(recalls(perfect, related, np.array([1.0, 0.5])).values()) == {0.5}
    known = {
        count: set(recalls(cosines[:count], related[:count], judged)) for count in (18, 30, 60, 204)
    }  # half unrelated
    assert [len(names) for names in known.values()] == [0, 1, 2, 3]


def test_recall_follows_the_roc_curve_of_scikit_learn():
    rng = np.random.default_rng(0)
    related = rng.random(4_000) < 0.3
    cosines = rng.normal(related * 1.5, 1)
    rates, shares, _ = roc_curve(related, cosines, drop_intermediate=False)
    found = recalls(cosines, related, cosines[related])
    assert found["recall_at_fpr[0.05]"] == pytest.approx(shares[rates <= 0.05].max())
    assert found["recall_at_fpr[0.01]"] == pytest.approx(shares[rates <= 0.01].max())
    assert found["recall_at_precision[0.9]"] == pytest.approx(shares[shares >= 9 * rates].max())
