import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml
from nbconvert import HTMLExporter
from PIL import Image

from run_notebooks import NOTEBOOKS, ROOT, notebook_parameters, tidy

TESTED = {"generate_sport_sentences": (12, 18), "baseline_comparison": (12, 18), "fine_tune": (12, 28)}


def run(*arguments):
    return subprocess.run(
        [sys.executable, ROOT / "run_notebooks.py", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
    )


@pytest.fixture(scope="module")
def executed(tmp_path_factory, tiny_folder):
    runs = tmp_path_factory.mktemp("runs")
    committed = {path: path.read_bytes() for folder in ("data", "figures") for path in (ROOT / folder).glob("*.*")}
    result = run(
        "--profile", "tiny", "--runs", runs, "--set", f"model={tiny_folder}", f"comparison_model={tiny_folder}"
    )
    assert result.returncode == 0, result.stderr[-3000:]
    for path, content in committed.items():
        assert path.read_bytes() == content, f"{path} was touched"
    return runs, result


def test_every_notebook_runs_with_the_tiny_profile(executed):
    runs, result = executed
    for notebook in NOTEBOOKS:
        node = nbformat.read(runs / f"{notebook}.ipynb", 4)
        assert all(cell.execution_count for cell in node.cells if cell.cell_type == "code")
        assert (runs / f"{notebook}.html").stat().st_size > 100_000
    for words in ("Corpus: 600 sentences", "The band:", "Fine-tuning, on 200 held-out sentences", "Peak memory"):
        assert words in result.stdout
    assert "simcse, temperature 0.4, epoch 3 of 3" in result.stderr  # progress reaches the terminal, not the notebook
    for notebook in NOTEBOOKS:
        cells = nbformat.read(runs / f"{notebook}.ipynb", 4).cells
        assert not [o.text for cell in cells for o in cell.get("outputs", ()) if o.get("name") == "stderr"]
    assert (runs / "models" / "sport-simcse" / "model.safetensors").is_file()


def test_every_picture_is_legible_in_size_and_has_its_numbers(executed):
    runs, _ = executed
    pictures = sorted((runs / "figures").glob("*.png"))
    assert [p.stem for p in pictures] == sorted(p.stem for p in (runs / "figures").glob("*.json"))
    assert len(pictures) == 22
    for picture in pictures:
        with Image.open(picture) as image:
            assert image.width >= 600
            assert round(image.info["dpi"][0]) == 100
        content = json.loads(picture.with_suffix(".json").read_text())
        assert set(content) == {"settings", "versions", "numbers"}
        assert "seed" in content["settings"]


@pytest.mark.parametrize("graded", [False, True])
def test_own_sentences_without_sports(tmp_path, tiny_folder, some_sentences, graded):
    """Another corpus by the parameters alone: no sport, no split, no pairs or such of two grades, and a sentence that
    would like to run."""
    corpus, hostile = tmp_path / "mine.txt", "<script>alert('gotcha')</script> beats the field"
    corpus.write_text("\n".join([hostile, *some_sentences * 2]))  # with repeats
    pairs = zip(some_sentences[:36], some_sentences[36:])
    rows = "".join(f"{first},{second},{2 * (row % 2)}\n" for row, (first, second) in enumerate(pairs))
    (tmp_path / "pairs.csv").write_text("sentence1,sentence2,grade\n" + rows)
    for notebook, parameters in {
        "baseline_comparison": {"comparison_model": None},
        "fine_tune": {
            "epochs": 1,
            "other_temperature": None,
            "batch_size": 8,
            "saved_model": str(tmp_path / "tuned"),
            "look_at": hostile,
        },
    }.items():
        common = {
            "model": str(tiny_folder),
            "pooling": "mean",
            "corpus_path": str(corpus),
            "pairs_path": str(tmp_path / "pairs.csv") if graded else None,
            "cache_folder": str(tmp_path / "cache"),
            "figures_folder": str(tmp_path / "figures"),
        }
        papermill.execute_notebook(
            ROOT / f"{notebook}.ipynb", tmp_path / "out.ipynb", common | parameters, cwd=ROOT, progress_bar=False
        )
    assert (tmp_path / "tuned" / "model.safetensors").is_file()
    assert (tmp_path / "tuned" / "thresholds.json").is_file() == graded
    assert corpus.read_text() == "\n".join([hostile, *some_sentences * 2])
    page, _ = HTMLExporter().from_notebook_node(nbformat.read(tmp_path / "out.ipynb", 4))
    assert "&lt;script&gt;alert(" in page
    assert "<script>alert(" not in page


def test_an_error_in_a_cell_is_shown_and_stops_the_run(tmp_path):
    result = run("--profile", "tiny", "--runs", tmp_path / "runs", "--set", "sentence_count=0")
    assert result.returncode != 0
    assert "ValueError: count is 0" in result.stderr
    assert "baseline_comparison" not in result.stdout
    assert (tmp_path / "runs" / "generate_sport_sentences.html").is_file()
    assert not (tmp_path / "runs" / "data" / "sport_sentences.csv").exists()


def test_bad_parameters_stop_fine_tune_before_anything_is_written(tmp_path):
    """The parameters, imports and checks at its head, as a script with one bad value each."""
    code = [cell.source for cell in nbformat.read(ROOT / "fine_tune.ipynb", 4).cells if cell.cell_type == "code"]
    folders = {"saved_model": str(tmp_path / "m" / "x"), "figures_folder": str(tmp_path / "f")}
    for name, bad in {"temperature": 0, "epochs": 0, "batch_size": 1, "saved_epoch": 4}.items():
        values = "\n".join(f"{key} = {value!r}" for key, value in (folders | {name: bad}).items())
        result = subprocess.run(
            [sys.executable, "-c", "\n".join([code[0], values, *code[1:3]])],
            cwd=ROOT, capture_output=True, text=True, timeout=120, env=os.environ | {"PYTHONPATH": "."},
        )  # fmt: skip
        assert f"ValueError: {name} is {bad}" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("profile", "assignments", "message"),
    [
        ("embeded", [], "no profile 'embeded': known are embedded, original, tiny"),
        ("tiny", ["temprature=0.4"], "no notebook has a parameter 'temprature'"),
        ("tiny", ["temperature"], "'temperature' is no NAME=VALUE"),
    ],
)
def test_unknown_profiles_and_parameters_are_errors(profile, assignments, message):
    with pytest.raises(ValueError, match=message):
        notebook_parameters(profile, assignments, Path("runs"))


def test_misspelt_parameter_or_notebook_in_a_profile(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("fine_tune:\n  temprature: 0.4\n")
    with pytest.raises(ValueError, match="fine_tune has no parameter 'temprature', only epochs, objective"):
        notebook_parameters(str(file), [], Path("runs"))
    file.write_text("finetune:\n  temperature: 0.4\n")
    with pytest.raises(ValueError, match="no notebook is called 'finetune'"):
        notebook_parameters(str(file), [], Path("runs"))


def test_profiles_hold_only_known_parameters_and_embedded_the_defaults():
    for profile in ("embedded", "original", "tiny"):
        notebook_parameters(profile, [], Path("runs"))
    sections = yaml.safe_load((ROOT / "profiles" / "embedded.yaml").read_text())
    for notebook, values in sections.items():
        defaults = papermill.inspect_notebook(str(ROOT / f"{notebook}.ipynb"))
        assert values == {name: ast.literal_eval(defaults[name]["default"]) for name in values}


def test_outputs_are_redirected_and_can_be_set():
    parameters = notebook_parameters(
        "embedded", ["epochs=1", "corpus_path=mine.txt", "comparison_model=null"], Path("runs")
    )
    assert parameters["generate_sport_sentences"] == {"data_folder": "runs/data", "figures_folder": "runs/figures"}
    assert parameters["baseline_comparison"]["comparison_model"] is None
    assert parameters["fine_tune"]["corpus_path"] == "mine.txt"
    assert parameters["fine_tune"]["epochs"] == 1
    assert parameters["fine_tune"]["saved_model"] == "runs/models/sport-simcse"


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_committed_form(notebook):
    raw = (ROOT / f"{notebook}.ipynb").read_text()
    node = nbformat.reads(raw, 4)
    code = [cell for cell in node.cells if cell.cell_type == "code"]
    low, high = TESTED[notebook]
    assert low <= len(code) <= high
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert "parameters" in code[0].metadata.tags
    for line in code[0].source.splitlines():
        _, value = re.fullmatch(r"(\w+) = ([^#]+?)(?:  # .+)?", line).groups()
        ast.literal_eval(value)  # literals only
    for cell in code:
        assert len(cell.source.splitlines()) <= (19 if cell is not code[0] else 30)
        assert "class " not in cell.source
        assert not [o for o in cell.outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert any(o.get("data", {}).get("image/png") for cell in code for o in cell.outputs)
    assert "widget" not in raw
    assert "papermill" not in node.metadata
    assert "injected-parameters" not in raw
    assert not re.search(r"/(home|root|tmp|work|Users)/", raw)


def test_tidy_drops_bars_and_keeps_words():
    outputs = [nbformat.v4.new_output("stream", name="stderr", text=text) for text in ("a warning\n", "\r 50%|##   |")]
    node = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=outputs)])
    assert [o.text for o in tidy(node).cells[0].outputs] == ["a warning\n"]
