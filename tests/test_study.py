import json
from dataclasses import asdict

import numpy as np
import pytest

from experiments import constants, study
from src.encoder import load_encoder
from src.sharing import save_encoder
from src.training import TrainingSettings
from tests.tiny_model import make_tiny_model


@pytest.fixture
def small(tmp_path, monkeypatch, tiny):
    """The study itself, of a tiny model on few sentences."""
    sizes = {"TRAINED_ON": 192, "LOOKED_AT": 60, "FITTED_ON": 64, "VIEWS": 16}
    model = str(save_encoder(tiny, tmp_path / "model", {}))
    for name, value in (sizes | {"MODEL": model, "RESULTS": tmp_path / "study.jsonl"}).items():
        monkeypatch.setattr(study, name, value)
    return tmp_path / "study.jsonl"


def run(monkeypatch, *arguments):
    plans = {
        "simcse": [TrainingSettings(temperature=t) for t in (0.1, 0.4)],
        "own": [TrainingSettings(objective="topic_and_facts")] * 2,  # in two plans, or twice in one: done once
    }
    monkeypatch.setattr(study, "PLANS", plans)
    monkeypatch.setattr("sys.argv", ["study", *arguments])
    study.main()


def test_runs_are_shared_recorded_and_not_repeated(small, monkeypatch):
    run(monkeypatch, "--plan", "simcse", "--part", "2/2")
    assert [line["settings"]["temperature"] for line in study.results()] == [0.4]
    run(monkeypatch, "--plan", "simcse", "--part", "1/2")
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
    run(monkeypatch, "--plan", "simcse")
    assert small.read_text() == before
    run(monkeypatch)
    assert [line["settings"]["objective"] for line in study.results()[1:]] == ["simcse", "simcse", "topic_and_facts"]


def test_a_line_from_before_a_setting_existed_counts_as_its_default(small):
    settings = asdict(TrainingSettings(temperature=0.2))
    del settings["objective"], settings["facts"], settings["stretch"]
    small.write_text(json.dumps({"settings": settings}) + "\n")
    assert study.done(TrainingSettings(temperature=0.2))
    assert not study.done(TrainingSettings(temperature=0.2, objective="topic_and_facts"))


def test_the_training_sentences_are_not_looked_at(small):
    truth = study.Truth()
    assert not set(truth.training) & set(truth.sentences)
    assert set(truth.corpus["split"]) == set(truth.pairs["split"]) == {"validation"}
    assert truth.measure(load_encoder(study.MODEL))["centring"]["mean"] < 0.5


def test_view_retrieval_is_certain_without_dropout_and_harder_with_more(tmp_path, some_sentences):
    stiff, loose, looser = (
        load_encoder(str(make_tiny_model(tmp_path / str(dropout), dropout=dropout)), "mean")
        for dropout in (0.0, 0.3, 0.9)
    )
    assert study.view_retrieval(stiff, some_sentences) == 1
    shares = [study.view_retrieval(encoder, some_sentences) for encoder in (loose, looser)]
    assert 1 > shares[0] > shares[1] >= 0
    assert shares[0] == study.view_retrieval(loose, some_sentences)  # its own seed
    assert not loose.model.training


def test_constants_are_varied_one_at_a_time(small, monkeypatch):
    folder = small.parent
    chosen = constants.AS_CHOSEN | {"train_sentences": 192}
    patched = {"AS_CHOSEN": chosen, "TRIED": {"neighbours": (0,), "train_sentences": (128,)}, "MODEL": study.MODEL}
    for name, value in (patched | {"RESULTS": folder / "constants.jsonl", "FIGURES": folder}).items():
        monkeypatch.setattr(constants, name, value)
    for part in ("1/2", "2/2", "1/1"):  # shared by two, and done: drawn by the last of them
        assert not (folder / "constants.json").exists() or part == "1/1"
        monkeypatch.setattr("sys.argv", ["constants", "--seeds", "0", "--part", part])
        constants.main()
    lines = study.read(folder / "constants.jsonl")
    assert sorted(line["sentences"] for line in lines) == [0, 128, 128, 192, 192]
    drawn = json.loads((folder / "constants.json").read_text())["numbers"]
    assert drawn["neighbours"]["width"].keys() == {"0", "16"}
    for neighbours, label in ((16, "train_sentences"), (None, "train_sentences, one in 192 a neighbour")):
        (width,) = (
            line["measured"]["width"]
            for line in lines
            if line["sentences"] == 128 and line["constants"]["neighbours"] == neighbours
        )
        assert drawn[label]["width"]["128"] == pytest.approx(width)
