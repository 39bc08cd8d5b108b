import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset

from src import scorecard
from src.quality import order
from src.scorecard import (
    MAIN,
    MEASURES,
    Scorecard,
    compare,
    general_language_pairs,
    judge,
    lookup,
    score,
    score_pairs,
    side_by_side,
    thresholds,
)
from src.sentences import generate_sentences, graded_pairs
from src.similarity import pairwise_distribution


@pytest.fixture(scope="module")
def data():
    corpus = generate_sentences(600)
    return corpus.filter(lambda row: row["split"] == "test", keep_in_memory=True), graded_pairs("test", 16).to_pandas()


@pytest.fixture(scope="module")
def embed(data):
    corpus, pairs = data
    sentences = [*corpus["sentence"], *pairs["sentence1"], *pairs["sentence2"]]
    rows = np.random.default_rng(0).standard_normal((len(sentences), 16)).astype(np.float32) + 0.4
    return lookup(sentences, rows / np.linalg.norm(rows, axis=1, keepdims=True))


@pytest.fixture(scope="module")
def card(data, embed):
    return score(embed, *data, name="random", base=embed, replicates=40)


def test_every_measure_is_there_with_an_interval(card, data, embed):
    assert set(card.values) == set(MEASURES)
    for measure, value in card.values.items():
        low, high = (value, value) if measure == "agreement" else card.interval(measure)
        assert low <= value <= high, measure
        assert np.isfinite([low, value, high]).all()
    distribution = pairwise_distribution(embed(data[0]["sentence"][:]))
    assert card.values["width"] == distribution.width
    assert card.values["agreement"] == pytest.approx(1)
    assert not card.unknown
    assert card.name in card._repr_html_()


def test_an_interval_covers_the_truth_as_often_as_it_says():
    """Cosines that depend on their event: resampling events covers the true mean order, resampling pairs does not."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(40):
        events = np.repeat(np.arange(30), 20)
        grades = np.tile([0, 1], 300)
        slope = rng.normal(0.5, 1.5, 30)[events]
        frame = pd.DataFrame({"sentence1": events.astype(str), "sentence2": "x", "grade": grades})
        frame["template1"] = [f"sport/{event}/test/0" for event in events]
        cosines = slope * grades + rng.normal(0, 1, 600)
        low, high = score_pairs(cosines, frame, "x", replicates=50).interval("rung_d_prime[1]")
        covered.append(low <= 0.5 / np.sqrt((1 + 1 + 1.5**2) / 2) <= high)
    assert np.mean(covered) > 0.8  # resampling pairs instead covers it in half the trials


def test_copies_of_a_sentence_are_not_paired(data, embed):
    """If they were, resampling would push the mean cosine of embeddings that are orthogonal above 0."""
    corpus = data[0].select(range(100))
    card = score(lookup(corpus["sentence"][:], np.eye(100, dtype=np.float32)), corpus, replicates=20)
    assert card.interval("mean") == (pytest.approx(0, abs=3e-4), pytest.approx(0, abs=3e-4))


def test_a_difference_is_marked_where_its_interval_excludes_zero(card, data, embed):
    better = score_pairs(
        data[1]["grade"].to_numpy() * 0.1 + 1e-3 * np.arange(len(data[1])) % 7, data[1], "better", replicates=40
    )
    same = score_pairs(np.random.default_rng(0).random(len(data[1])), data[1], "chance", replicates=40)
    table = compare([same, better])
    assert table.loc["fact_order", "better"].endswith("*")
    assert not table["chance"].str.endswith("*").any()
    with pytest.raises(ValueError, match="not scored on the same data"):
        compare([same, score_pairs(np.random.default_rng(0).random(len(data[1])), data[1], "other seed", seed=1)])


def test_without_grades_the_card_says_what_cannot_be_known(data, embed):
    corpus = Dataset.from_dict({"sentence": data[0]["sentence"][:]})
    card = score(embed, corpus, replicates=10)
    assert set(card.values) == {"width", "mean", "std", "uniformity", "effective_rank"}
    assert "cannot show" in card.unknown
    assert card.unknown in card._repr_html_()


def test_saved_and_loaded(card, tmp_path):
    card.save(tmp_path / "card.json")
    loaded = Scorecard.load(tmp_path / "card.json")
    assert loaded.values == card.values
    assert loaded.interval("width", against=card) == (0, 0)


def test_pairs_without_kinds_or_events():
    frame = pd.DataFrame({"sentence1": list("abcdefgh"), "sentence2": "z", "grade": [0, 0, 1, 1, 2, 2, 2, 0]})
    cosines = np.array([0.1, 0.2, 0.3, 0.2, 0.5, 0.3, 0.4, 0.1])
    card = score_pairs(cosines, frame, "mine", replicates=10)
    assert card.values["topic_order"] == order(cosines, frame["grade"].to_numpy(), (0, 1, 2))
    assert "fact_order" not in card.values


def test_bad_input(data, embed):
    corpus, pairs = data
    with pytest.raises(ValueError, match="1 sentences have no embedding, such as 'Nobody"):
        embed(["Nobody knows this."])
    with pytest.raises(ValueError, match="resample is 'pairs'"):
        score(embed, corpus, resample="pairs")
    with pytest.raises(ValueError, match="equal cosines"):
        score_pairs(np.ones(len(pairs)), pairs, "constant")
    with pytest.raises(ValueError, match="2 sentences, but 3 embeddings"):
        lookup(["a", "b"], np.eye(3, dtype=np.float32))
    nobody = pairs.assign(sentence2="Nobody wrote this.")
    with pytest.raises(ValueError, match=f"{len(pairs)} sentences have no embedding, such as 'Nobody wrote this"):
        score(embed, corpus, nobody, replicates=2)
    with pytest.raises(ValueError, match=f"{len(pairs) - 1} cosines, but {len(pairs)} grades"):
        score_pairs(np.arange(len(pairs) - 1.0), pairs, "one short")
    with pytest.raises(ValueError, match="the cosine of pair 3 is nan"):
        score_pairs(np.where(np.arange(len(pairs)) == 3, np.nan, 0.1 * np.arange(len(pairs))), pairs, "NaN")
    with pytest.raises(ValueError, match="no pairs"):
        score_pairs(np.zeros(0), pairs[:0], "none")
    with pytest.raises(ValueError, match="row 0 has length 0, not 1"):
        lookup(["a", "b"], np.zeros((2, 3), np.float32))


def test_a_replicate_in_which_a_measure_is_undefined_is_left_out():
    """Three events, each with its own cosine: where one event alone is drawn, nothing varies."""
    frame = pd.DataFrame({"sentence1": list("aabbcc") * 2, "sentence2": "z", "grade": [0, 1] * 6})
    frame["template1"] = "sport/" + frame["sentence1"] + "/test/0"
    card = score_pairs(np.tile([0.1, 0.1, 0.2, 0.2, 0.3, 0.4], 2), frame, "few events", replicates=100)
    drawn = np.array(card.replicates["rung_d_prime[1]"])
    assert 0 < np.isnan(drawn).sum() < 50
    assert np.isfinite(card.interval("rung_d_prime[1]")).all()


def test_cards_of_different_data_side_by_side(card, data, embed):
    other = score(embed, data[0].select(range(30)), name="thirty", resample="sport", replicates=10)
    table = side_by_side([other, card], MAIN)
    assert list(table.columns) == ["thirty", "random"]
    assert list(table.index) == list(MAIN)
    assert table.loc["topic_order", "thirty"] == ""
    assert not table.stack().str.contains("*", regex=False).any()
    assert table.loc["width", "random"].startswith(f"{card.values['width']:.3f} [")
    with pytest.raises(ValueError, match="not scored on the same data"):
        compare([other, card])


def test_the_guard_says_which_pairs_it_took(monkeypatch):
    monkeypatch.setattr(scorecard, "ask_hub", lambda question: (None, ConnectionError("refused")))
    pairs, name = general_language_pairs()
    assert "control set" in name
    assert Counter(pairs["grade"]) == dict.fromkeys(range(5), 80)
    assert pairs["template1"].str.split("/").str[0].nunique() >= 15


def graded(cosines, grades):
    names = [f"sentence {row}" for row in range(len(grades))]
    return np.array(cosines), pd.DataFrame({"sentence1": names, "sentence2": names[::-1], "grade": grades})


def test_thresholds_meet_what_is_wanted_and_not_less():
    """Against every cut tried one by one."""
    rng = np.random.default_rng(0)
    grades = rng.integers(0, 5, 300)
    cosines, pairs = graded(grades / 10 + rng.normal(0, 0.1, 300), grades)
    found = thresholds(cosines, pairs, 2, 0.8, 0.1, replicates=50)
    related = grades >= 2
    precise = [cut for cut in cosines if related[cosines >= cut].mean() >= 0.8]
    few_false = [cut for cut in cosines if (cosines >= cut)[~related].mean() <= 0.1]
    chosen = found["thresholds"]
    assert chosen["precision 0.8"][0] == pytest.approx(min(precise))
    assert chosen["false positive rate 0.1"][0] == pytest.approx(min(few_false))
    for value, low, high in chosen.values():
        assert low <= value <= high
        assert 0 < high - low < 0.3
    slope, intercept = found["calibration"].values()
    probabilities = 1 / (1 + np.exp(-slope * cosines - intercept))
    assert probabilities.mean() == pytest.approx(related.mean(), abs=0.01)
    assert found["share_related"] == pytest.approx(related.mean())
    assert json.loads(json.dumps(found)) == found
    rows = judge(found, cosines, pairs, 2, replicates=50)
    called = cosines >= chosen["precision 0.8"][0]
    of_precision = rows["precision 0.8"]
    assert of_precision["precision"][0] == pytest.approx(related[called].mean())
    assert of_precision["recall"][0] == pytest.approx(called[related].mean())
    assert rows["false positive rate 0.1"]["false positive rate"][0] <= 0.1
    error = ((probabilities - related) ** 2).mean()
    assert of_precision["squared error of the probability"][0] == pytest.approx(error)
    assert all(low <= value <= high for row in rows.values() for value, low, high in row.values())


def test_a_threshold_that_cannot_be_met_is_none():
    cosines, pairs = graded([0.9, 0.5, 0.4, 0.1], [0, 4, 4, 4])
    found = thresholds(cosines, pairs, 2, 0.95, 0.0, replicates=20)
    assert found["thresholds"]["precision 0.95"][0] is None
    assert found["thresholds"]["false positive rate 0"][0] is None  # the highest is unrelated
    assert judge(found, cosines, pairs, 2, replicates=20) == {"precision 0.95": {}, "false positive rate 0": {}}
    with pytest.raises(ValueError, match="4 pairs, all related or all unrelated: related_from is 0"):
        thresholds(cosines, pairs, 0, 0.9, 0.05)


def test_a_threshold_whose_upper_end_is_unknown_says_so():
    """Only the first pair meets it, and a third of the replicates do not have that one: they must not be left out."""
    cosines, pairs = graded([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2], [4, 0, 4, 0, 4, 0, 4, 0])
    value, low, high = thresholds(cosines, pairs, 2, 0.95, 0.1)["thresholds"]["precision 0.95"]
    assert value == 0.9
    assert low <= value
    assert high is None


def test_pairs_that_are_told_apart_without_error_have_a_calibration():
    cosines, pairs = graded([0.1, 0.2, 0.3, 0.6, 0.7, 0.8], [0, 0, 1, 3, 4, 4])
    slope, intercept = thresholds(cosines, pairs, 2, 0.9, 0.1, replicates=20)["calibration"].values()
    assert 1 < slope < 30
    assert -intercept / slope == pytest.approx(0.45, abs=0.02)


def test_a_resampling_of_few_sentences_may_have_but_one():
    corpus, rows = Dataset.from_dict({"sentence": ["a", "b", "c"]}), np.eye(3, dtype=np.float32)
    card = score(lookup(["a", "b", "c"], rows), corpus, name="three", replicates=100)
    assert 70 < np.isfinite(card.replicates["mean"]).sum() < 100
    assert card.interval("mean") == pytest.approx((0, 0), abs=1e-3)


def test_groups_without_events_are_not_what_is_resampled():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((30, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    corpus = Dataset.from_dict({"sentence": [str(k) for k in range(30)]})
    of = lookup(corpus["sentence"][:], rows)
    alone = score(of, corpus, name="x", replicates=50).replicates["width"]
    grouped = corpus.add_column("sport", ["a", "b"] * 15)
    assert score(of, grouped, name="x", replicates=50).replicates["width"] == alone
    assert score(of, grouped, name="x", replicates=50, resample="sport").replicates["width"] != alone


@pytest.fixture(scope="module")
def raw():
    """Two topics, each in many wordings that share few words, with names of their own."""
    rng = np.random.default_rng(0)
    topics = [[f"{topic}{number}" for number in range(40)] for topic in ("goal", "swim")]
    sentences = []
    for row in range(80):
        words = rng.choice(topics[row % 2], 6, replace=False)
        sentences.append(f"the {' '.join(words)} Name{chr(97 + row % 26)}{chr(97 + row // 26)} in {row}")
    return sentences


def by_words(count):
    """An embedding of `count(word)`s: which words a model would see."""

    def embed(sentences):
        rows = np.array([[count(word, k) for k in range(90)] for s in sentences for word in [s.split()]], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    return embed


sees_topics = by_words(lambda words, k: 0.01 + sum(word.startswith(("goal", "swim")[k]) for word in words if k < 2))
sees_names = by_words(lambda words, k: 0.01 + (str(k) in words))


def test_swapped_pairs_differ_in_what_they_say(raw):
    pairs = scorecard.swapped_pairs(raw, sees_topics)
    assert len(pairs) == 3 * len(raw)
    for (_, one), (_, two), (_, three) in zip(*(pairs.iloc[start::3].iterrows() for start in range(3))):
        assert one.sentence1 == two.sentence1 == three.sentence1
        name, number = (one.sentence1.split()[k] for k in (-3, -1))
        assert one.sentence2.split()[-3::2] == three.sentence2.split()[-3::2] == [name, number]
        assert two.sentence2 in raw and name not in two.sentence2
        topics = [pair.sentence2.split()[1][:4] for pair in (one, two, three)]
        assert topics[0] == topics[1] == one.sentence1.split()[1][:4] != topics[2]
    assert pairs[["same_topic", "same_facts"]].to_numpy().tolist() == [[True, True], [True, False], [False, True]] * 80


def test_order_is_told_without_labels(raw):
    pairs = scorecard.swapped_pairs(raw, sees_topics)
    topics, names = (scorecard.order_without_labels(embed, pairs) for embed in (sees_topics, sees_names))
    assert topics == {"topic": 1, "facts": 0.5}
    assert names["facts"] == 1
    assert names["topic"] == pytest.approx(0.5, abs=0.01)
    assert scorecard.regret(names, topics) == pytest.approx(0.5, abs=0.01)
    assert scorecard.regret(topics, topics) == 0


def test_order_is_told_of_odd_corpora(raw):
    without_names = [" ".join(sentence.split()[1:-3]) for sentence in raw]
    told = scorecard.order_without_labels(sees_topics, scorecard.swapped_pairs(without_names, sees_topics))
    assert told == {"topic": 1, "facts": 0.5}
    alike = [f"the {kind} goal was {kind} for Anna in {row}" for row, kind in enumerate(["late", "early", "soft"] * 4)]
    assert len(scorecard.swapped_pairs(alike, sees_names))
    with pytest.raises(ValueError, match="all 3 sentences are in the same words"):
        scorecard.swapped_pairs(["then Anna won", "then Berta won", "then Carla won"], sees_names)
