import json

import pytest

from experiments import labels, read_lines
from src.sharing import save_encoder


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The curve itself, of a tiny model on few sentences."""
    own = {way: settings.__class__(**(vars(settings) | {"pair_steps": 4})) for way, settings in labels.OWN.items()}
    sizes = {"TRAINED_ON": 128, "LOOKED_AT": 100, "JUDGING": 60, "OWN": own}
    for name, value in (sizes | {"FIGURES": tmp_path, "RESULTS": tmp_path / "labels.jsonl"}).items():
        monkeypatch.setattr(labels, name, value)
    monkeypatch.setattr(labels, "CACHE", tmp_path / "cache")
    return tmp_path


def test_runs_are_recorded_and_drawn(small, tiny, monkeypatch):
    model = str(save_encoder(tiny, small / "model", {}))
    monkeypatch.setattr(labels, "MODEL", model)
    # sentence-transformers opens the folder, whose weights are not among the presets
    monkeypatch.setattr("sys.argv", ["labels", "--model", model, "--counts", "0", "30", "--draws", "0"])
    labels.main()
    lines = read_lines(small / "labels.jsonl")
    assert [(line["way"], line["pairs"]) for line in lines] == [
        ("base", 0), ("graded pairs", 30), ("topic and facts, not sharpened", 0), ("topic and facts, not sharpened", 30),
        ("CoSENTLoss", 30), ("CosineSimilarityLoss", 30),
    ]  # fmt: skip
    widths = [line["measures"]["width"] for line in lines]
    assert len(set(widths)) == len(widths)
    numbers = json.loads((small / "label_curve.json").read_text())["numbers"]
    assert set(numbers["order"]) == {"base", *labels.OWN, *labels.OTHERS}
    assert list(numbers["order"]["topic and facts, not sharpened"]) == ["0", "30"]
    before = (small / "labels.jsonl").read_text()
    monkeypatch.setattr(labels, "Data", None)  # nothing is left to do
    labels.main()
    assert (small / "labels.jsonl").read_text() == before


def test_pairs_that_train_share_nothing_with_those_that_judge():
    data = labels.Data()
    sentences = {name: {*table["sentence1"], *table["sentence2"]} for name, table in
                 (("train", data.labelled), ("test", data.pairs), ("validation", data.validation))}  # fmt: skip
    assert not sentences["train"] & (sentences["test"] | sentences["validation"] | set(data.test["sentence"]))
    assert not set(data.rehearsal) & {*data.everyday["sentence1"], *data.everyday["sentence2"]}
