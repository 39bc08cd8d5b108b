import numpy as np
import pytest

from experiments import study
from src.encoder import load_encoder
from src.sharing import save_encoder


@pytest.fixture
def small(tmp_path, monkeypatch, tiny):
    """The study itself, of a tiny model on few sentences."""
    sizes = {"TRAINED_ON": 192, "LOOKED_AT": 60, "FITTED_ON": 64, "VIEWS": 16}
    model = str(save_encoder(tiny, tmp_path / "model", {}))
    for name, value in (sizes | {"MODEL": model, "RESULTS": tmp_path / "study.jsonl"}).items():
        monkeypatch.setattr(study, name, value)
    return tmp_path / "study.jsonl"


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["study", "--temperatures", "0.1", "0.4", "--epochs", "1", *arguments])
    study.main()


def test_runs_are_shared_recorded_and_not_repeated(small, monkeypatch):
    run(monkeypatch, "--seeds", "0", "--part", "2/2")
    assert [line["settings"]["temperature"] for line in study.results()] == [0.4]
    run(monkeypatch, "--seeds", "0", "--part", "1/2")
    base, *runs = study.results()
    assert base["settings"] is None
    assert [line["settings"]["temperature"] for line in runs] == [0.4, 0.1]
    as_it_is = base["epochs"]["0"]["as it is"]
    assert as_it_is["agreement"] == pytest.approx(1)
    for line in runs:
        measures = line["epochs"]["1"]["as it is"]
        assert set(measures) == set(as_it_is)
        assert measures["mean"] != as_it_is["mean"]
        assert np.isfinite(line["losses"]).all()
    before = small.read_text()
    run(monkeypatch, "--seeds", "0")
    assert small.read_text() == before


def test_the_training_sentences_are_not_looked_at(small):
    truth = study.Truth()
    assert not set(truth.training) & set(truth.sentences)
    assert set(truth.corpus["split"]) == set(truth.pairs["split"]) == {"validation"}
    assert truth.measure(load_encoder(study.MODEL))["centring"]["mean"] < 0.5
