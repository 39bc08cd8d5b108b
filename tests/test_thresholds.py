import json

import numpy as np
import pandas as pd
import pytest

from src.thresholds import choose_thresholds, evaluate_thresholds


def graded(cosines, grades):
    names = [f"sentence {row}" for row in range(len(grades))]
    return np.array(cosines), pd.DataFrame({"sentence1": names, "sentence2": names[::-1], "grade": grades})


@pytest.fixture(scope="module")
def many():
    rng = np.random.default_rng(0)
    grades = rng.integers(0, 5, 300)
    return graded(grades / 10 + rng.normal(0, 0.1, 300), grades)


@pytest.fixture(scope="module")
def chosen(many):
    return choose_thresholds(*many, 2, 0.8, 0.1, replicates=50)


def test_thresholds_meet_what_is_wanted_and_not_less(many, chosen):
    """Against every cut tried one by one."""
    cosines, related = many[0], (many[1]["grade"] >= 2).to_numpy()
    precise = [cut for cut in cosines if related[cosines >= cut].mean() >= 0.8]
    few_false = [cut for cut in cosines if (cosines >= cut)[~related].mean() <= 0.1]
    assert chosen["thresholds"]["precision 0.8"][0] == pytest.approx(min(precise))
    assert chosen["thresholds"]["false positive rate 0.1"][0] == pytest.approx(min(few_false))
    for value, low, high in chosen["thresholds"].values():
        assert low <= value <= high
        assert 0 < high - low < 0.3
        assert {value, low, high} <= set(cosines)  # no end is between two cosines
    assert chosen["share_related"] == pytest.approx(related.mean())
    assert (chosen["related"], chosen["pairs"]) == ("grade 2 or more", 300)
    assert json.loads(json.dumps(chosen)) == chosen


def test_a_rate_that_is_met_exactly_is_met():
    """Two of ten unrelated pairs, in a row of them."""
    cosines, pairs = graded([0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0], [4] + 10 * [0])
    chosen = choose_thresholds(cosines, pairs, 2, 0.5, 0.2, replicates=5)
    assert [value for value, *_ in chosen["thresholds"].values()] == [0.9, 0.8]


def test_thresholds_are_evaluated(many, chosen):
    cosines, related = many[0], (many[1]["grade"] >= 2).to_numpy()
    slope, intercept = chosen["calibration"].values()
    probabilities = 1 / (1 + np.exp(-slope * cosines - intercept))
    assert probabilities.mean() == pytest.approx(related.mean(), abs=0.01)
    rows = evaluate_thresholds(chosen, *many, 2, replicates=50)
    for name, row in rows.items():
        called = cosines >= chosen["thresholds"][name][0]
        assert row["threshold"] == tuple(chosen["thresholds"][name])
        assert row["precision"][0] == pytest.approx(related[called].mean())
        assert row["recall"][0] == pytest.approx(called[related].mean())
        assert row["false positive rate"][0] == pytest.approx(called[~related].mean())
        assert row["squared error of the probability"][0] == pytest.approx(((probabilities - related) ** 2).mean())
    assert rows["false positive rate 0.1"]["false positive rate"][0] <= 0.1
    assert all(low <= value <= high for row in rows.values() for value, low, high in row.values())


def test_events_are_resampled(many, chosen):
    """Three events, each of 100 pairs: there are but few values that a resampled threshold can have."""
    cosines, pairs = many
    events = pairs.assign(template1=[f"sport/{row % 3}/test/0" for row in range(300)])
    rows = evaluate_thresholds(chosen, cosines, events, 2, replicates=200)
    related, called = pairs["grade"] >= 2, cosines >= chosen["thresholds"]["precision 0.8"][0]
    precisions = {related[called & (np.arange(300) % 3 == event)].mean() for event in range(3)}
    _, low, high = rows["precision 0.8"]["precision"]
    assert (low, high) == pytest.approx((min(precisions), max(precisions)))  # one event alone, in 1 of 27 resamples


def test_a_threshold_that_cannot_be_met_is_none():
    cosines, pairs = graded([0.9, 0.5, 0.4, 0.1], [0, 4, 4, 4])
    chosen = choose_thresholds(cosines, pairs, 2, 0.95, 0.0, replicates=20)
    assert chosen["thresholds"]["precision 0.95"][0] is None
    assert chosen["thresholds"]["false positive rate 0"][0] is None  # the highest is unrelated
    rows = evaluate_thresholds(chosen, cosines, pairs, 2, replicates=20)
    assert rows == {"precision 0.95": {}, "false positive rate 0": {}}


def test_all_related_or_none(many, chosen):
    cosines, pairs = graded([0.9, 0.5, 0.4, 0.1], [0, 4, 4, 4])
    for wrong in (0, 5):
        with pytest.raises(ValueError, match=f"4 pairs.*related_from is {wrong}"):
            choose_thresholds(cosines, pairs, wrong, 0.9, 0.05)
        with pytest.raises(ValueError, match=f"4 pairs.*related_from is {wrong}"):
            evaluate_thresholds(chosen, cosines, pairs, wrong)


def test_a_threshold_whose_upper_end_is_unknown_says_so():
    """Only the first pair meets it, and a third of the replicates do not have that one: they must not be left out."""
    cosines, pairs = graded([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2], [4, 0, 4, 0, 4, 0, 4, 0])
    chosen = choose_thresholds(cosines, pairs, 2, 0.95, 0.1)
    value, low, high = chosen["thresholds"]["precision 0.95"]
    assert value == 0.9
    assert low <= value
    assert high is None
    few = choose_thresholds(*graded([0.9, 0.5, 0.4], [4, 0, 0]), 2, 0.95, 0.1)  # three replicates in ten lack the first
    assert few["thresholds"]["precision 0.95"] == [0.9, 0.9, None]
    threshold = evaluate_thresholds(chosen, cosines, pairs, 2, replicates=20)["precision 0.95"]["threshold"]
    assert threshold == pytest.approx((0.9, low, np.nan), nan_ok=True)


def test_pairs_that_are_told_apart_without_error_have_a_calibration():
    cosines, pairs = graded([0.1, 0.2, 0.3, 0.6, 0.7, 0.8], [0, 0, 1, 3, 4, 4])
    slope, intercept = choose_thresholds(cosines, pairs, 2, 0.9, 0.1, replicates=20)["calibration"].values()
    assert 1 < slope < 30
    assert -intercept / slope == pytest.approx(0.45, abs=0.02)
