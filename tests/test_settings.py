from dataclasses import asdict

import pytest
import torch
import yaml

from src.records import ROOT
from src.settings import RunSettings, TrainingSettings, check_parameters, read_profile


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


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("temperature", "0.4", "a number"),
        ("temperature", None, "a number"),
        ("learning_rate", "1e-5", r"a number, such as 1\.0e-5"),  # as YAML reads 1e-5
        ("batch_size", 32.5, "a whole number"),
        ("epochs", True, "a whole number"),
        ("gradient_caching", "no", "true or false"),
        ("text_column", False, "text"),  # as YAML reads no
        ("look_at", {"Who won": "Bob?"}, "text"),
    ],
)
def test_a_parameter_of_another_type_is_named(name, value, expected):
    with pytest.raises(ValueError, match=f"^{name} is .*, of type {type(value).__name__}: expected {expected}"):
        check_parameters({name: value})


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("wanted_precision", 95, "from 0 to 1"),
        ("false_positive_rate", 5, "from 0 to 1"),
        ("duplicates_from", 0.5, r"from 0\.8 to 1"),
        ("related_from", 0, "from 1 to 4"),
        ("max_length", 2, "3 or more"),
        ("test_sentences", 0, "1 or more"),
    ],
)
def test_a_parameter_out_of_its_range_is_named(name, value, wanted):
    with pytest.raises(ValueError, match=f"^{name} is {value}: it must be {wanted}"):
        check_parameters({name: value})


def test_what_is_right_or_no_parameter_passes():
    check_parameters(asdict(RunSettings()) | asdict(TrainingSettings()) | {"stretch": 1, "corpus": [], "n": None})


@pytest.mark.parametrize("supported", [True, False])
def test_bf16_where_the_hardware_has_it(monkeypatch, supported):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported)
    expected = {"auto": supported, "fp32": False, "bf16": True}
    assert {precision: TrainingSettings(precision=precision).bf16 for precision in expected} == expected
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: not supported)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: supported)
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
    with pytest.raises(ValueError, match="triplets_path"):
        read_profile(profile(tmp_path, objective="supervised_simcse"))
    for text, message in {
        "": "has no section fine_tune", "fine_tune:": "has no section fine_tune",
        "- fine_tune": "must be lines of NAME: VALUE", "embedded": "must be lines of NAME: VALUE",
        "fine_tune:\n  epochs:2": "fine_tune must be lines of NAME: VALUE",
        "fine_tune:\n  look_at: He said: yes": "line 2: no YAML",
        "fine_tune:\n\tepochs: 2": "line 2: no YAML",
    }.items():  # fmt: skip
        (tmp_path / "own.yaml").write_text(text)
        with pytest.raises(ValueError, match=rf"own\.yaml.*{message}"):
            read_profile(tmp_path / "own.yaml")
