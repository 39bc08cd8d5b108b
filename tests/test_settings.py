import pytest
import torch
import yaml

from src.records import ROOT
from src.settings import RunSettings, TrainingSettings, read_profile


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("objective", "triplet"),
        ("epochs", 0),
        ("epochs", -1),
        ("temperature", 0.0),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("facts", 1.1),
        ("facts", -0.1),
        ("stretch", 0.0),
        ("learning_rate", 0.0),
        ("pair_steps", 0),
        ("batch_size", 1),
        ("precision", "fp8"),
    ],
)
def test_settings_that_cannot_work(name, value):
    with pytest.raises(ValueError, match=f"^{name} is {value!r}: "):
        TrainingSettings(**{name: value})


@pytest.mark.parametrize("supported", [True, False])
def test_bf16_where_the_hardware_has_it(monkeypatch, supported):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported)
    expected = {"auto": supported, "fp32": False, "bf16": True}
    assert {precision: TrainingSettings(precision=precision).bf16 for precision in expected} == expected
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: not supported)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: supported)
    assert {precision: TrainingSettings(precision=precision).bf16 for precision in expected} == expected


def profile(tmp_path, **parameters):
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"baseline_comparison": {"pooling": "cls"}, "fine_tune": parameters}))
    return path


def test_a_profile_gives_the_settings_of_a_run_and_of_its_training(tmp_path):
    path = profile(tmp_path, model="models/tiny", temperature=0.2, objective="simcse", test_sentences=200)
    run, training = read_profile(path)
    assert run == RunSettings(model="models/tiny")
    assert training == TrainingSettings(temperature=0.2, objective="simcse")


def test_the_pairs_of_the_repository_are_not_for_another_corpus(tmp_path):
    assert read_profile(profile(tmp_path, corpus_path="mine.csv"))[0].pairs_path is None
    assert read_profile(profile(tmp_path, corpus_path="mine.csv", pairs_path="own.csv"))[0].pairs_path == "own.csv"


def test_every_profile_of_the_repository_is_one_for_the_command():
    models = {path.stem: read_profile(path)[0].model for path in (ROOT / "profiles").glob("*.yaml")}
    assert models["original"] == "unsup-simcse-roberta-base"
    assert models["tiny"] == "models/tiny"


def test_a_profile_that_cannot_work(tmp_path):
    with pytest.raises(ValueError, match=r"own\.yaml.*'temprature', only .*temperature"):
        read_profile(profile(tmp_path, temprature=0.1))
    with pytest.raises(ValueError, match=r"temperature is -0\.1"):
        read_profile(profile(tmp_path, temperature=-0.1))
    with pytest.raises(ValueError, match="corpus_path"):
        read_profile(profile(tmp_path, objective="supervised_simcse", corpus_path="own.csv"))
    for text in ("", "fine_tune:", "- fine_tune", "embedded"):
        (tmp_path / "empty.yaml").write_text(text)
        with pytest.raises(ValueError, match=r"empty\.yaml has no section fine_tune"):
            read_profile(tmp_path / "empty.yaml")
