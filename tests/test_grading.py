import numpy as np
import pandas as pd
import pytest

from src.grading import RANKS, propose_pairs, write_sheet
from src.pairs import load_pairs
from src.sentences import generate_sentences


@pytest.fixture(scope="module")
def corpus():
    sentences = generate_sentences(1_200)
    return sentences[sentences["split"] == "train"].reset_index(drop=True)


@pytest.fixture(scope="module")
def embeddings(corpus):
    """Rows that are close for one event, and closer for one sport than for two."""
    rng = np.random.default_rng(0)
    directions = {name: rng.standard_normal(32) for column in ("sport", "event") for name in set(corpus[column])}
    rows = [directions[row.sport] + directions[row.event] + rng.standard_normal(32) for row in corpus.itertuples()]
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_pairs_are_spread_from_near_to_far_and_use_no_sentence_twice(corpus, embeddings):
    sentences = corpus["sentence"].tolist()
    pairs = propose_pairs(sentences, embeddings, 90)
    assert list(pairs) == ["pair", "sentence1", "sentence2", "grade"]
    assert pairs["pair"].tolist() == list(range(1, 91))
    assert len({*pairs["sentence1"], *pairs["sentence2"]}) == 180
    row = {sentence: number for number, sentence in enumerate(sentences)}
    sides = [[row[sentence] for sentence in pairs[column]] for column in ("sentence1", "sentence2")]
    cosines = (embeddings[sides[0]] * embeddings[sides[1]]).sum(1)
    everything = (embeddings @ embeddings.T)[np.triu_indices(len(embeddings), 1)]
    assert np.quantile(cosines, 0.9) > np.quantile(everything, 0.99)  # random pairs would hardly have any of these
    assert np.quantile(cosines, 0.05) < np.quantile(everything, 0.7)
    same_event = [corpus["event"][a] == corpus["event"][b] for a, b in zip(*sides)]
    assert 0.2 < np.mean(same_event) < 0.9
    assert len({corpus["sport"][number] for number in sides[0]}) == corpus["sport"].nunique()
    # the ranks are not in order on the sheet
    assert abs(np.corrcoef(pairs["pair"], cosines)[0, 1]) < 0.4


def test_the_seed_draws_the_pairs(corpus, embeddings):
    sentences = corpus["sentence"].tolist()
    first, again, other = (propose_pairs(sentences, embeddings, 20, seed) for seed in (0, 0, 1))
    assert first.equals(again)
    assert not first.equals(other)


def test_all_sentences_may_be_needed_and_repeats_count_once(corpus, embeddings):
    sentences = corpus["sentence"].tolist()[:20]
    pairs = propose_pairs([*sentences, *sentences], np.vstack([embeddings[:20]] * 2), 10)
    assert {*pairs["sentence1"], *pairs["sentence2"]} == set(sentences)
    with pytest.raises(ValueError, match="11 pairs need 22 different sentences, there are only 20"):
        propose_pairs(sentences * 2, np.vstack([embeddings[:20]] * 2), 11)
    assert len(propose_pairs(["1 2", "Ann 7", "so", "?"], embeddings[:4], 2)) == 2  # nothing but names and numbers


def test_a_sheet_is_written_once_and_read_back_half_filled_in_any_order(corpus, embeddings, tmp_path):
    pairs = propose_pairs(corpus["sentence"].tolist(), embeddings, 20)
    path = tmp_path / "sheet.csv"
    write_sheet(pairs, path)
    assert "4  the same" in (tmp_path / "sheet.guide.txt").read_text()
    with pytest.raises(FileExistsError, match="may hold grades"):
        write_sheet(pairs, path)
    sheet = pd.read_csv(path, keep_default_na=False)
    sheet["grade"] = [str(number % 5) if number % 2 else "" for number in range(20)]
    sheet.sample(frac=1, random_state=0).to_csv(path, index=False)
    with pytest.warns(UserWarning, match="10 pairs are graded, 10 are not"):
        read = load_pairs(path)
    assert dict(zip(read["pair"], read["grade"])) == {n + 1: n % 5 for n in range(20) if n % 2}
    assert len(RANKS) > 4
