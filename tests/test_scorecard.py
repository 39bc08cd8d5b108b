from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from src import scoring
from src.quality import alignment, auc, order, recalls, rung_auc, word_overlap
from src.scorecard import MAIN, MEASURES, compare, rescaled
from src.scoring import score, score_pairs, score_word_overlap
from src.sentences import generate_sentences, graded_pairs
from src.similarity import cosines_of_pairs, mean_width, pairwise_distribution, within_groups


def lookup(sentences, rows):
    """An encoder that knows these sentences alone."""
    row_of = {sentence: row for row, sentence in enumerate(sentences)}
    return lambda wanted: rows[[row_of[sentence] for sentence in wanted]]


@pytest.fixture(scope="module")
def corpus():
    sentences = generate_sentences(600)
    return sentences[sentences["split"] == "test"].reset_index(drop=True)


@pytest.fixture(scope="module")
def pairs():
    return graded_pairs("test", 50)


@pytest.fixture(scope="module")
def encode(corpus, pairs):
    sentences = [*corpus["sentence"], *pairs["sentence1"], *pairs["sentence2"]]
    rows = np.random.default_rng(0).standard_normal((len(sentences), 16)).astype(np.float32) + 0.4
    return lookup(sentences, rows / np.linalg.norm(rows, axis=1, keepdims=True))


@pytest.fixture(scope="module")
def card(corpus, pairs, encode):
    return score("random", encode, corpus, pairs, pairs[pairs["grade"] != 3], everyday=pairs, replicates=40)


def test_every_measure_is_there_with_an_interval(card, corpus, encode):
    assert set(card.values) == set(MEASURES)
    for measure, (value, low, high) in card.estimates().items():
        if measure == "effective_rank":
            assert np.isfinite(value) and low is high is None
        else:
            assert low < value < high or value == 0, measure  # random rows reach no precision of 0.9
    embeddings = encode(corpus["sentence"])
    distribution = pairwise_distribution(embeddings)
    assert [card.values[m] for m in ("width", "mean", "std")] == [
        distribution.width,
        distribution.mean,
        distribution.std,
    ]
    within = within_groups(embeddings, corpus["sport"].to_numpy(), corpus["template"].to_numpy())
    assert card.values["width_within"] == pytest.approx(mean_width(within))


def test_each_measure_of_pairs_is_of_its_own_kind_and_grades(card, pairs, encode):
    cosines, grades, kinds = cosines_of_pairs(encode, pairs), pairs["grade"].to_numpy(), pairs["kind"].to_numpy()
    expected = {}
    for prefix, kind in (("", "balanced"), ("adversarial_", "adversarial")):
        rows = kinds == kind
        expected[f"{prefix}topic_order"] = order(cosines[rows], grades[rows], (0, 1, 2))
        expected[f"{prefix}fact_order"] = order(cosines[rows], grades[rows], (2, 3, 4))
        expected[f"{prefix}order"] = order(cosines[rows], grades[rows])
    rows = kinds == "balanced"
    for k in (1, 2, 3, 4):
        expected[f"rung_auc[{k}]"] = rung_auc(cosines[rows], grades[rows], k)
    name_trap, wording_trap, same = (kinds == kind for kind in ("name trap", "wording trap", "balanced"))
    expected["name_trap_auc"] = auc(cosines[name_trap & (grades == 2)], cosines[name_trap & (grades == 0)])
    expected["wording_trap_auc"] = auc(cosines[same & (grades == 4)], cosines[wording_trap])
    related = grades >= 2
    expected["related_auc"] = auc(cosines[same & related], cosines[same & ~related])
    others = same & (grades != 3)
    expected |= recalls(cosines[others], related[others], cosines[same & related])
    expected["alignment"] = alignment(cosines[same & (grades == 4)])
    assert {measure: card.values[measure] for measure in expected} == pytest.approx(expected)
    assert card.values["everyday_order"] == pytest.approx(order(cosines, grades))  # whatever their kind
    assert set(card.values) - set(expected) == {
        "width", "width_within", "mean", "std", "uniformity", "effective_rank", "everyday_order",
    }  # fmt: skip
    assert np.array_equal(card.cosines, cosines[same])


def test_replicates_are_the_measures_of_resampled_events(monkeypatch):
    """Three events, resampled whole: each replicate is the measure of one of ten explicit resamples."""
    monkeypatch.setattr(scoring, "FEWEST_PAIRS", 2)
    table = pd.DataFrame({"sentence1": list("abcabc"), "sentence2": "z", "grade": [0, 0, 0, 1, 1, 1]})
    table = table.assign(kind="balanced", template1="sport/" + table["sentence1"] + "/test/0")
    cosines = np.array([0.1, 0.5, 0.3, 0.2, 0.35, 0.9])
    explicit = set()
    for events in np.stack(np.meshgrid(*3 * [range(3)]), -1).reshape(-1, 3):
        lower, higher = cosines[events], cosines[events + 3]
        explicit.add(round(auc(higher, lower), 9))
    drawn = score_pairs("three events", cosines, table).replicates["rung_auc[1]"]
    assert set(drawn.round(9)) == explicit
    assert len(explicit) > 3


def test_an_interval_covers_the_truth_as_often_as_it_says():
    """Cosines that depend on their event: resampling events covers the true AUC, resampling pairs does not."""
    rng, events = np.random.default_rng(0), np.repeat(np.arange(30), 20)
    grades, covered, covered_by_pairs = np.tile([0, 1], 300), [], []
    table = pd.DataFrame({"sentence1": events.astype(str), "sentence2": "x", "grade": grades, "kind": "balanced"})
    table["template1"] = [f"sport/{event}/test/0" for event in events]
    alone = table.assign(template1=[f"sport/{row}/test/0" for row in range(600)])
    for _ in range(40):
        cosines = rng.normal(0.5, 1.5, 30)[events] * grades + rng.normal(0, 1, 600)
        for results, pairs in ((covered, table), (covered_by_pairs, alone)):
            _, low, high = score_pairs("x", cosines, pairs, replicates=50).estimate("rung_auc[1]")
            results.append(low <= norm.cdf(0.5 / np.sqrt(1 + 1 + 1.5**2)) <= high)
    assert np.mean(covered) > 0.8 > 0.7 > np.mean(covered_by_pairs)


def test_copies_of_a_sentence_are_not_paired(corpus):
    """If they were, resampling would push the mean cosine of embeddings that are orthogonal above 0."""
    some = corpus[:100]
    card = score("orthogonal", lookup(some["sentence"], np.eye(100, dtype=np.float32)), some, replicates=20)
    assert card.estimate("mean") == pytest.approx((0, 0, 0), abs=1e-6)


def test_replicates_of_range_are_moved_to_the_value_on_all_sentences(card):
    for measure in ("width", "width_within", "mean", "std", "uniformity"):
        assert card.replicates[measure].mean() == pytest.approx(card.values[measure]), measure
        assert card.replicates[measure].std() > 0


def test_a_difference_is_marked_where_its_interval_excludes_zero(pairs):
    rng = np.random.default_rng(0)
    chance = rng.random(len(pairs))
    same = score_pairs("chance", chance, pairs, replicates=40)
    better = score_pairs("better", pairs["grade"].to_numpy() * 0.1 + 0.01 * chance, pairs, replicates=40)
    table = compare([same, better])
    assert table.loc["fact_order", "better"] == "{:.3f} [{:.3f}, {:.3f}]*".format(*better.estimate("fact_order"))
    assert not table["chance"].str.endswith("*").any()
    assert compare([better, same]).loc["fact_order", "chance"].endswith("*")
    value, low, high = better.estimate("fact_order", minus=same)
    assert value == better.values["fact_order"] - same.values["fact_order"]
    drawn = better.replicates["fact_order"] - same.replicates["fact_order"]
    assert (low, high) == pytest.approx(tuple(drawn.quantile([0.025, 0.975])))
    for other in (
        score_pairs("other seed", chance, pairs, replicates=40, seed=1),
        score_pairs("other replicates", chance, pairs, replicates=30),
        score_pairs("other pairs", chance[1:], pairs[1:], replicates=40),
    ):
        with pytest.raises(ValueError, match="same data"):
            compare([same, other])


def test_paired_differences_are_narrower(pairs):
    """Of two cards that differ by a little noise: resampled alike, they rise and fall together."""
    rng = np.random.default_rng(0)
    cosines = pairs["grade"].to_numpy() * 0.1 + rng.normal(0, 0.2, len(pairs))
    one, two = (score_pairs("x", cosines + rng.normal(0, 0.01, len(pairs)), pairs, replicates=40) for _ in range(2))
    _, low, high = two.estimate("topic_order", minus=one)
    _, low_alone, high_alone = two.estimate("topic_order")
    assert high - low < 0.3 * (high_alone - low_alone)


def test_without_grades_there_is_the_distribution_alone(corpus, encode):
    card = score("no grades", encode, corpus[["sentence"]], replicates=10)
    assert set(card.values) == {"width", "mean", "std", "uniformity", "effective_rank"}


def test_pairs_without_events():
    grades = np.repeat([0, 1, 2, 3, 4], [9, 6, 6, 3, 1])
    table = pd.DataFrame({"sentence1": list("abcdefghijklmnopqrstuvwxy"), "sentence2": "z", "grade": grades})
    cosines = grades / 10 + np.random.default_rng(0).normal(0, 0.1, 25)
    card = score_pairs("mine", cosines, table.assign(kind="balanced"), replicates=10)
    assert card.values["topic_order"] == pytest.approx(order(cosines, table["grade"].to_numpy(), (0, 1, 2)))
    # 9 pairs are too few for the third rung
    assert set(card.values) == {"topic_order", "rung_auc[1]", "rung_auc[2]"}


def test_bad_input(corpus, pairs, encode):
    cosines = 0.1 * np.arange(len(pairs))
    constant = score_pairs("constant", np.ones(len(pairs)), pairs, replicates=2).values
    assert "topic_order" not in constant  # which is undefined
    assert constant["rung_auc[1]"] == 0.5
    with pytest.raises(ValueError, match=f"{len(pairs) - 1} cosines.*{len(pairs)} grades"):
        score_pairs("one short", cosines[1:], pairs)
    with pytest.raises(ValueError, match="pair 3 is nan"):
        score_pairs("NaN", np.where(np.arange(len(pairs)) == 3, np.nan, cosines), pairs)
    with pytest.raises(ValueError, match="no pairs"):
        score_pairs("none", np.zeros(0), pairs[:0])


def test_a_card_without_a_measure_has_an_empty_cell(card, corpus, encode):
    bare = replace(card, name="bare", values={"width": card.values["width"]})
    table = compare([bare, card], [*MAIN, "effective_rank"])
    assert list(table.index) == [*MAIN, "effective_rank"]
    assert list(table.iloc[1:, 0]) == [""] * len(MAIN)
    assert table.iloc[0, 1].startswith(f"{card.values['width']:.3f} [")
    assert table.loc["effective_rank"].iloc[1] == f"{card.values['effective_rank']:.3f}"
    with pytest.raises(ValueError, match="same data"):
        compare([score("thirty", encode, corpus[:30], replicates=10), card])


def test_word_overlap_is_the_best_of_three_in_each_measure(pairs):
    train, validation = ["the keeper saves a penalty"], pairs[pairs["grade"] != 3].reset_index(drop=True)
    best = score_word_overlap(train, pairs, validation)
    rows, chosen_on = (
        word_overlap(train, table["sentence1"].tolist(), table["sentence2"].tolist()) for table in (pairs, validation)
    )
    cards = [score_pairs(n, rows[n], pairs, (chosen_on[n], validation), replicates=1).values for n in rows]
    assert best == {m: max(values[m] for values in cards) for m in cards[0] if m != "alignment"}  # less is better
    assert "recall_at_precision[0.9]" in best
    assert "recall_at_precision[0.9]" not in score_word_overlap(train, pairs)


def test_a_resampling_of_few_sentences_may_have_but_one():
    corpus, rows = pd.DataFrame({"sentence": list("abc")}), np.eye(3, dtype=np.float32)
    card = score("three", lookup("abc", rows), corpus, replicates=100)
    assert 70 < np.isfinite(card.replicates["mean"]).sum() < 100
    assert card.estimate("mean") == pytest.approx((0, 0, 0), abs=1e-3)


def test_the_rescaled_base_is_the_base_but_for_its_range(card):
    wide = rescaled(card, 1.5 * card.values["width"])
    assert wide.values["width"] == pytest.approx(1.5 * card.values["width"])
    assert wide.values["width_within"] == pytest.approx(1.5 * card.values["width_within"])
    same = set(wide.values) - {"width", "width_within", "std"}
    assert {m: wide.values[m] for m in same} == {m: card.values[m] for m in same}
    assert set(card.values) - set(wide.values) == {"mean", "uniformity", "alignment"}  # these would change
    for measure in same:
        assert wide.estimate(measure, minus=card)[0] == 0
    assert wide.estimate("width", minus=card)[1] > 0
    table = compare([card, wide], ["width", "topic_order"], intervals=False)
    assert list(table) == ["random", "random, rescaled"]
    assert table.loc["width", "random, rescaled"] == f"{wide.values['width']:.3f}*"
    assert table.loc["topic_order", "random, rescaled"] == f"{card.values['topic_order']:.3f}"
