import json

import pandas as pd
import pytest

import experiments
from experiments import human_grades, labels, read_lines, runs_to_do, study
from src.sentences import graded_pairs
from src.settings import TrainingSettings
from src.sharing import save_encoder
from src.training import Collapse


@pytest.fixture
def small(tmp_path, monkeypatch, tiny):
    """The studies themselves, of a tiny model on few sentences."""
    for name, value in {"TRAINED_ON": 128, "TEST_SENTENCES": 100}.items():
        monkeypatch.setattr(experiments, name, value)
    model = str(save_encoder(tiny, tmp_path / "model", {}))
    for module in (study, labels, human_grades):
        monkeypatch.setattr(module, "RESULTS", tmp_path / "results.jsonl")
        for name, value in {"MODEL": model, "FIGURES": tmp_path, "CACHE": tmp_path / "cache"}.items():
            monkeypatch.setattr(module, name, value)
    quick = {way: TrainingSettings(**(vars(settings) | {"pair_steps": 4})) for way, settings in labels.OWN.items()}
    for module in (labels, human_grades):
        monkeypatch.setattr(module, "OWN", quick)
    return tmp_path


def run(module, monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["", *arguments])
    module.main()


def numbers(file):
    return json.loads(file.read_text())["numbers"]


def test_the_study_is_recorded_drawn_and_not_repeated(small, monkeypatch):
    monkeypatch.setattr(study, "TEMPERATURES", (0.05, 0.4))
    run(study, monkeypatch, "--seeds", "0", "--part", "2/2")
    assert not (small / "study.png").exists()  # the first process draws
    run(study, monkeypatch, "--seeds", "0")
    lines = read_lines(small / "results.jsonl")
    assert [line["temperature"] for line in lines] == [0.4, 0.05]
    assert {len(line["epochs"]) for line in lines} == {study.EPOCHS + 1}
    assert lines[0]["epochs"][0] == lines[1]["epochs"][0]  # the base
    assert set(numbers(small / "study.json")) == {m for m in experiments.SHOWN if not m.startswith("recall")}
    assert set(numbers(small / "study.json")["width"]) == {"temperature 0.05", "temperature 0.4"}
    monkeypatch.setattr(study, "SportData", None)  # nothing is left to do
    run(study, monkeypatch, "--seeds", "0")


def test_the_label_curve_is_recorded_drawn_and_not_repeated(small, monkeypatch):
    # sentence-transformers opens the folder, whose weights are not among the presets
    monkeypatch.setattr(
        labels, "WAYS", {way: counts if counts == (0,) else (30,) for way, counts in labels.WAYS.items()}
    )
    arguments = ["--model", labels.MODEL, "--draws", "0"]
    run(labels, monkeypatch, *arguments)
    lines = read_lines(small / "results.jsonl")
    assert [(line["way"], line["pairs"]) for line in lines] == [
        ("base", 0), ("graded pairs", 30), ("topic and facts", 0), ("CoSENTLoss", 30), ("CosineSimilarityLoss", 30),
        ("proposed pairs", 30), ("random pairs", 30),
    ]  # fmt: skip
    widths = [line["measures"]["width"] for line in lines]
    assert len(set(widths)) == len(widths)
    order = numbers(small / "label_curve.json")["order"]
    assert list(order) == ["base", *labels.WAYS]
    assert list(order["topic and facts"]) == ["0"]
    monkeypatch.setattr(labels, "SportData", None)
    run(labels, monkeypatch, *arguments)


def test_grades_of_picked_pairs_follow_from_their_facts():
    pairs = graded_pairs("test", 4, kinds=("balanced",))
    for row in pairs.itertuples():
        sides = [
            pd.Series({"sport": template.split("/")[0], "event": template.split("/")[1], "facts": facts})
            for template, facts in ((row.template1, row.facts1), (row.template2, row.facts2))
        ]
        assert labels.grade_of(*sides) == row.grade


@pytest.fixture
def graded_by_people(tmp_path, some_sentences):
    """Two genres, in which each sentence is in two pairs, so that pairs form families."""
    rows = [
        f"{one},{some_sentences[(k + 1 - 2 * (k % 2)) % 72]},{k % 6},{'main-news' if k < 36 else 'main-forums'}"
        for k, one in enumerate(some_sentences)
    ] * 30
    rows = [row.replace(" lap", f" run {n // 72} lap") for n, row in enumerate(rows)]
    path = tmp_path / "stsb.csv"
    path.write_text("sentence1,sentence2,score,genre\n" + "\n".join(rows) + "\n")
    return path


def test_human_grades_are_dealt_by_family(graded_by_people):
    corpora = dict(human_grades.read_corpora(str(graded_by_people)))
    assert list(corpora) == ["STSB forums", "STSB news"]
    for pairs in corpora.values():
        in_split = {}
        for split, of_split in pairs.groupby("split"):
            in_split[split] = set(of_split["sentence1"]) | set(of_split["sentence2"])
        assert set(in_split) == {"train", "validation", "test"}
        assert not in_split["train"] & in_split["test"]
        assert not in_split["validation"] & (in_split["train"] | in_split["test"])
        assert pairs["relatedness"].min() == 0
        assert pairs["relatedness"].max() == 1


def test_human_grades_are_recorded_and_drawn(small, graded_by_people, monkeypatch):
    monkeypatch.setattr(human_grades, "SIMCSE_SENTENCES", 64)
    monkeypatch.setattr(human_grades, "train_there", lambda model, *rest: human_grades.load_encoder(model).encode)
    monkeypatch.setattr(human_grades, "WAYS", {"base": (0,), "graded pairs": (30,), "CosineSimilarityLoss": (30,)})
    run(human_grades, monkeypatch, str(graded_by_people), "--draws", "0")
    lines = read_lines(small / "results.jsonl")
    assert {(line["corpus"], line["way"]) for line in lines} >= {("STSB news", "base"), ("STSB forums", "graded pairs")}
    assert "lap" not in (small / "results.jsonl").read_text()  # no sentence is kept
    of_news = numbers(small / "human_grades.json")["STSB news"]
    assert of_news["base"]["0"]["order minus base"] == [0, 0, 0]


def test_parts_share_the_runs():
    assert runs_to_do([1, 2, 2, 3], "1/2") + runs_to_do([1, 2, 2, 3], "2/2", done=[2]) == [1, 3]
    with pytest.raises(ValueError, match="part is 3/2"):
        runs_to_do([1], "3/2")


def test_a_run_that_collapses_is_recorded_and_left_out_of_the_figure(small, graded_by_people, monkeypatch):
    monkeypatch.setattr(human_grades, "WAYS", {"base": (0,), "graded pairs": (30,)})

    def collapse(*_):
        raise Collapse("the loss is nan at step 3")

    monkeypatch.setattr(human_grades, "train", collapse)
    run(human_grades, monkeypatch, str(graded_by_people), "--draws", "0")
    (line, _) = [line for line in read_lines(small / "results.jsonl") if "collapsed" in line]
    assert line["way"] == "graded pairs"
    assert "nan at step 3" in line["collapsed"]
    assert list(numbers(small / "human_grades.json")["STSB news"]) == ["base"]
