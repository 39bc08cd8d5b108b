import json
import shutil

import pytest

from experiments import results


@pytest.fixture
def figures(tmp_path, monkeypatch):
    """A copy of the figures' numbers, which a test may spoil."""
    for name in results.SECTIONS:
        shutil.copy(results.FIGURES / f"{name}.json", tmp_path)
    monkeypatch.setattr(results, "FIGURES", tmp_path)
    return tmp_path


def change(file, change_numbers):
    content = json.loads(file.read_text())
    change_numbers(content["numbers"])
    file.write_text(json.dumps(content))


def test_the_committed_pages_are_what_the_command_makes():
    readme = results.README.read_text(encoding="utf-8")
    assert readme == results.with_table(readme), "run python -m experiments.results"
    assert results.PAGE.read_text(encoding="utf-8") == results.page(), "run python -m experiments.results"


def test_a_changed_number_changes_the_page_that_is_written(figures, monkeypatch, tmp_path):
    change(figures / "tuned.json", lambda numbers: numbers["base"].update({"width": [0.987, 0.912, 0.999]}))
    monkeypatch.setattr(results, "PAGE", tmp_path / "docs" / "results.md")
    monkeypatch.setattr(results, "README", tmp_path / "README.md")
    (tmp_path / "README.md").write_text("before\n<!-- made by experiments.results -->\nold\n<!-- end -->\nafter\n")
    results.main()
    page = (tmp_path / "docs" / "results.md").read_text(encoding="utf-8")
    assert "0.99 [0.91, 1.00]" in page
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| base | 0.99 |" in readme
    assert readme.startswith("before") and readme.endswith("after\n")
    assert "old" not in readme


@pytest.mark.parametrize(
    ("name", "remove", "key"),
    [
        ("frontier", lambda numbers: numbers.pop("word_overlap"), "word_overlap"),
        ("thresholds", lambda numbers: numbers.pop("judged"), "judged"),
        ("training_benchmark", lambda numbers: numbers.pop("gigabytes"), "gigabytes"),
    ],
)
def test_a_missing_number_is_named_with_its_file(figures, name, remove, key):
    change(figures / f"{name}.json", remove)
    with pytest.raises(ValueError, match=rf"{name}.json has no '{key}'"):
        results.page()


def test_a_missing_file_is_named(figures):
    (figures / "tuned.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"tuned\.json"):
        results.page()


def test_a_value_without_an_interval_and_one_that_rounds_to_zero():
    assert results.estimate([0.5, None, None]) == results.estimate([0.5, float("nan"), float("nan")]) == "0.50"
    assert results.estimate([-0.001, -0.2, 0.004], "+") == "+0.00 [-0.20, +0.00]"


def test_a_threshold_that_cannot_be_met_has_an_empty_row(figures):
    change(figures / "thresholds.json", lambda numbers: numbers["judged"].append([["base", "precision 1"], {}]))
    assert "| base | precision 1 | cannot be met |  |  |  |" in results.page()
