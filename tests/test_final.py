import json

import numpy as np
import pandas as pd
import pytest

from experiments import final, study
from src.scorecard import Scorecard
from src.settings import TrainingSettings
from src.sharing import save_encoder
from src.similarity import pairwise_distribution
from src.transforms import Centering


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The comparison itself, of a tiny model on few sentences."""
    load_pairs, settings = study.load_pairs, TrainingSettings("topic_and_facts", batch_size=32, learning_rate=1e-3)
    sizes = {"TRAINED_ON": 96, "LOOKED_AT": 300, "FITTED_ON": 64, "REPLICATES": 10, "CHOSEN": settings}
    for name, value in (sizes | {"FIGURES": tmp_path, "CACHE": tmp_path / "cache"}).items():
        monkeypatch.setattr(final, name, value)
    monkeypatch.setattr(study, "load_pairs", lambda path: load_pairs(path).iloc[::4])
    return tmp_path


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["final", *arguments])
    final.main()


def test_seeds_are_shared_kept_and_compared(small, tiny, monkeypatch):
    arguments = ["--model", str(save_encoder(tiny, small / "model", {})), "--seeds", "0", "1"]
    run(monkeypatch, *arguments, "--part", "1/2")  # the base and seed 1
    assert not list(small.glob("*.json"))
    assert len(list(small.glob("cache/*topic_and_facts*/epoch-1.pt"))) == 1
    run(monkeypatch, *arguments)
    (results,) = small.glob("*.json")
    assert results.name == "final_model.json"
    numbers = json.loads(results.read_text())["numbers"]
    assert len(numbers) == 4
    width = numbers["test"]["width"]
    assert list(width) == ["seeds", "tuned", "base", "minus base", "at equal width", "minus at equal width"]
    assert width["seeds"][0] != width["seeds"][1]
    assert width["tuned"][0] == pytest.approx(np.mean(width["seeds"]))
    assert width["minus base"][0] == pytest.approx(width["tuned"][0] - width["base"][0])
    assert width["minus base"][1] <= width["minus base"][0] <= width["minus base"][2]
    assert len(list(small.glob("cache/*topic_and_facts*/epoch-1.pt"))) == 2


def test_the_test_split_is_all_that_is_looked_at(small):
    data = final.TestData()
    assert not set(data.training) & {*data.corpus["sentence"], *data.pairs["sentence1"], *data.pairs["sentence2"]}
    assert set(data.corpus["split"]) == set(data.pairs["split"]) == {"test"}
    assert 0 < len(data.unseen_pairs) < len(data.pairs)
    assert 0 < len(data.unseen_corpus) < len(data.corpus)
    seen = set(study.load_sentences(study.ROOT / "data" / "sport_sentences.csv").query("split == 'train'")["sport"])
    assert not seen & set(data.unseen_corpus["sport"])
    assert not seen & set(data.unseen_pairs["template1"].str.split("/").str[0])


def test_the_mean_of_seeds_has_their_spread(monkeypatch):
    monkeypatch.setattr(final, "REPLICATES", 400)
    cards = [Scorecard("", {"width": value}, pd.DataFrame({"width": [value] * 400}), {}) for value in (0.2, 0.4)]
    assert final.mean_card(cards, "both").estimate("width") == pytest.approx((0.3, 0.2, 0.4))
    assert final.mean_card(cards[:1] * 2, "one").estimate("width") == pytest.approx((0.2, 0.2, 0.2))


def test_sharpening_to_a_width_reaches_it(small, tiny):
    data = final.TestData()
    sentences = data.corpus["sentence"].tolist()
    centred = Centering().fit(tiny.encode(data.training[:64])).transform(tiny.encode(sentences))
    wanted = 1.3 * pairwise_distribution(centred).width
    tiny.cache = small / "cache"
    power, encode = final.sharpen(data, tiny.encode, wanted)
    assert 0 < power < 2
    assert pairwise_distribution(encode(sentences)).width == pytest.approx(wanted, rel=0.02)
