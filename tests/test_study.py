import json
from dataclasses import asdict, replace

import numpy as np
import pytest

import experiments
from experiments import study
from src import scorecard
from src.settings import TrainingSettings
from src.sharing import save_encoder
from src.transforms import Centering, with_transform


@pytest.fixture
def small(tmp_path, monkeypatch, tiny):
    """The study itself, of a tiny model on few sentences."""
    model = str(save_encoder(tiny, tmp_path / "model", {}))
    sizes = {"TRAINED_ON": 192, "LOOKED_AT": 60, "FITTED_ON": 64, "MODEL": model}
    load_pairs, plans = study.load_pairs, {
        "simcse": [TrainingSettings("simcse", temperature=t) for t in (0.1, 0.4)],
        "own": [TrainingSettings("topic_and_facts")] * 2,  # in two plans, or twice in one: done once
    }  # fmt: skip
    for name, value in sizes.items():
        monkeypatch.setattr(study, name, value)
    monkeypatch.setattr(study, "load_pairs", lambda path: load_pairs(path).iloc[::8])
    monkeypatch.setattr(scorecard, "RANDOM_PAIRS", 1_000)
    monkeypatch.setattr(study, "PLANS", plans)
    monkeypatch.setattr(study, "RESULTS", tmp_path / "study.jsonl")
    monkeypatch.setattr(study, "CACHE", tmp_path / "cache")
    return tmp_path / "study.jsonl"


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["study", *arguments])
    study.main()


def settings_in(file):
    return [line["settings"] and TrainingSettings(**line["settings"]) for line in experiments.read_lines(file)]


def test_runs_are_shared_recorded_and_not_repeated(small, monkeypatch):
    run(monkeypatch, "--plan", "simcse", "--part", "2/2")
    assert settings_in(small) == study.PLANS["simcse"][:1]
    run(monkeypatch, "--plan", "simcse", "--part", "1/2")
    assert settings_in(small) == [study.PLANS["simcse"][0], None, study.PLANS["simcse"][1]]
    results = study.StudyResults(small)
    as_it_is = results.base["as it is"]
    assert as_it_is["agreement"] == pytest.approx(1)
    assert abs(results.base["centring"]["mean"]) < abs(as_it_is["mean"])
    for settings, epochs in results.runs:
        assert len(epochs) == settings.epochs
        assert epochs[1].keys() == results.base.keys()
        assert epochs[1]["as it is"].keys() == as_it_is.keys()
        assert epochs[1]["as it is"]["mean"] != as_it_is["mean"]
    assert all(np.isfinite(line["losses"]).all() for line in experiments.read_lines(small))
    before = small.read_text()
    run(monkeypatch, "--plan", "simcse")
    assert small.read_text() == before
    run(monkeypatch)
    assert [settings.objective for settings in settings_in(small)[3:]] == ["topic_and_facts"]


def test_a_line_from_before_a_setting_existed_counts_as_its_default(small, monkeypatch):
    lines = [None, *(asdict(settings) for plan in study.PLANS.values() for settings in plan)]
    for settings in lines[1:]:
        del settings["pair_weight"], settings["gradient_caching"]
    small.write_text("".join(json.dumps({"settings": settings}) + "\n" for settings in lines))
    monkeypatch.setattr(study, "ValidationData", None)  # nothing to do, so nothing is loaded
    run(monkeypatch)
    assert len(settings_in(small)) == len(lines)


def test_the_training_sentences_are_not_looked_at(small):
    data = study.ValidationData()
    looked_at = {*data.corpus["sentence"], *data.pairs["sentence1"], *data.pairs["sentence2"]}
    assert not set(data.training) & looked_at
    assert set(data.corpus["split"]) == set(data.pairs["split"]) == {"validation"}


def test_a_transform_on_top_is_fitted_on_the_sentences_named(tiny, some_sentences):
    embeddings = tiny.encode(some_sentences)
    encode = with_transform(tiny.encode, Centering(), some_sentences[:32])
    centred = Centering().fit(embeddings[:32]).transform(embeddings[32:])
    assert encode(some_sentences[32:]) == pytest.approx(centred, abs=1e-5)


def test_a_grid_is_shared_without_rest():
    grid = ["base", {"a": 1}, "base", 2, 3]
    assert experiments.runs_to_do(grid) == ["base", {"a": 1}, 2, 3]
    assert experiments.runs_to_do(grid, "1/2") == ["base", 2]
    assert experiments.runs_to_do(grid, "2/2", done=[3]) == [{"a": 1}]
    for part in ("0/2", "3/2"):
        with pytest.raises(ValueError, match=part):
            experiments.runs_to_do(grid, part)


def test_the_committed_results_hold_every_run():
    grid = [None, *(settings for plan in study.PLANS.values() for settings in plan)]
    assert not experiments.runs_to_do(grid, done=settings_in(study.RESULTS))
    results = study.StudyResults()
    for family, settings in study.FAMILIES.items():
        seeds = results.of_seeds(family, "loss_over_epoch_1")
        assert np.shape(seeds) == (3, 4)
        assert [values[1] for values in seeds] == [1, 1, 1]
        assert replace(settings, epochs=1) in results.first_epoch()


def test_results_without_the_base_are_refused(small):
    experiments.append_line(small, {"settings": asdict(study.CHOSEN), "losses": [], "epochs": {}})
    with pytest.raises(ValueError, match="no line of the base model"):
        study.StudyResults(small)
