import json

import numpy as np
import pytest

from experiments import final
from src.postprocessing import Centering
from src.scorecard import Scorecard
from src.sharing import save_encoder
from src.similarity import pairwise_distribution
from src.training import TrainingSettings


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The comparison itself, of a tiny model on few sentences."""
    settings = TrainingSettings(objective="topic_and_facts", batch_size=32, learning_rate=1e-3)
    sizes = {"TRAINED_ON": 96, "LOOKED_AT": 300, "FITTED_ON": 64, "REPLICATES": 10, "CHOSEN": settings}
    for name, value in (sizes | {"FIGURES": tmp_path, "CACHE": tmp_path / "cache"}).items():
        monkeypatch.setattr(final, name, value)
    return tmp_path


def test_seeds_are_shared_kept_and_compared(small, tiny, monkeypatch):
    arguments = ["final", "--model", str(save_encoder(tiny, small / "model", {})), "--seeds", "0", "1"]
    monkeypatch.setattr("sys.argv", [*arguments, "--part", "1/2"])  # the base and seed 1
    final.main()
    assert not list(small.glob("*.json"))
    monkeypatch.setattr("sys.argv", arguments)
    final.main()
    (results,) = small.glob("*.json")
    written = json.loads(results.read_text())["numbers"]
    assert len(written) == 4
    width = written["test"]["width"]
    assert width["seeds"][0] != width["seeds"][1]
    assert width["tuned"][0] == pytest.approx(np.mean(width["seeds"]))
    assert width["minus base"][1] <= width["minus base"][0] <= width["minus base"][2]
    assert len(list((small / "cache").glob("*topic_and_facts*/epoch-1"))) == 2


def test_the_test_split_is_all_that_is_looked_at(small):
    test = final.Test()
    assert not set(test.training) & {*test.corpus["sentence"], *test.pairs["sentence1"], *test.pairs["sentence2"]}
    assert set(test.corpus["split"]) == set(test.pairs["split"]) == {"test"}
    assert len(test.pairs_of_unseen) < len(test.pairs)


def test_the_mean_of_seeds_has_their_spread(monkeypatch):
    monkeypatch.setattr(final, "REPLICATES", 400)
    cards = [Scorecard("", {"width": value}, {"width": [value] * 400}, {}) for value in (0.2, 0.4)]
    mean = final.mean_card(cards, "both")
    assert mean.values["width"] == pytest.approx(0.3)
    assert mean.interval("width") == pytest.approx((0.2, 0.4))
    same = final.mean_card(cards[:1] * 2, "one")
    assert same.interval("width") == pytest.approx((0.2, 0.2))


def test_sharpening_to_a_width_reaches_it(small, tiny):
    test = final.Test()
    base = tiny.encode(test.sentences, progress=False)
    centred = Centering().fit(test.fitted_on(base)).transform(base)
    wanted = 1.3 * pairwise_distribution(centred[:300]).width
    power, rows = final.sharpened(test, base, wanted)
    assert 0 < power < 2
    assert pairwise_distribution(rows[:300]).width == pytest.approx(wanted, rel=0.02)
