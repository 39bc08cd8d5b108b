import ast
import json
import re
import warnings
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest
from IPython.display import Markdown
from PIL import Image

import run_notebooks
from run_notebooks import NOTEBOOKS, STUDY, notebook_defaults, notebook_parameters, split_assignments, tidy
from src.records import ROOT
from src.settings import TYPES, RunSettings, TrainingSettings
from tests.tiny_model import make_tiny_model

RUNS = Path("runs")
CODE_CELLS = {NOTEBOOKS[0]: (12, 18), NOTEBOOKS[1]: (12, 18), NOTEBOOKS[2]: (12, 24), STUDY: (3, 20)}


def cells_of(notebook):
    cells = nbformat.read(ROOT / f"{notebook}.ipynb", 4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


def execute(notebook, parameters, upto=None, again=False):
    """A notebook's code cells in this process, which spares the start of a kernel; what it displays, as HTML.

    With `again`, each cell is run twice in a row and once more at the end, and must display the same each time."""
    unknown = set(parameters) - set(notebook_defaults(notebook))
    assert not unknown
    shown = []

    def display(*values):
        texts = [value.data if isinstance(value, Markdown) else value.to_html() for value in values]
        shown.extend(re.sub(r"\bT_\w{5}", "", text) for text in texts)  # pandas' number for a table with a style

    def run(cell):
        shown.clear()
        exec(cell, names)
        names.update(parameters if cell is cells[0] else {})
        plt.close("all")
        return list(shown)

    names, cells = {"display": display}, cells_of(notebook)[:upto]
    displayed = []
    for cell in cells:
        displayed.append(run(cell))
        assert not again or run(cell) == displayed[-1], cell
    for cell, before in zip(cells, displayed) if again else ():
        assert run(cell) == before, cell
    return "".join(text for texts in displayed for text in texts)


def assigned_names(cell):
    """What statements of a cell give a name to, but for loops' variables."""
    outside = [node for node in ast.parse(cell).body if not isinstance(node, ast.FunctionDef)]
    nodes = [node for statement in outside for node in ast.walk(statement)]
    targets = [target for node in nodes if isinstance(node, ast.Assign) for target in node.targets]
    names = [node for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
    return {node.id for node in names if isinstance(node.ctx, ast.Store)}


@pytest.mark.parametrize("notebook", [*NOTEBOOKS, STUDY])
def test_no_name_means_two_things(notebook):
    counts = Counter(name for cell in cells_of(notebook) for name in assigned_names(cell))
    assert {name for name, count in counts.items() if count > 1} <= {"figure"}  # drawn and saved in one cell


@pytest.fixture(scope="module")
def executed(tmp_path_factory, tiny_folder):
    """All three, each in a kernel of its own, as `make run PROFILE=tiny` runs them."""
    runs = tmp_path_factory.mktemp("runs")
    committed = {path: path.read_bytes() for folder in ("data", "figures") for path in (ROOT / folder).glob("*.*")}
    models = [f"model={tiny_folder}", f"comparison_model={tiny_folder}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["", "--profile", "tiny", "--runs", str(runs), "--set", *models])
        run_notebooks.main()
    for path, content in committed.items():
        assert path.read_bytes() == content, f"{path} was touched"
    return runs


def test_every_notebook_runs_with_the_tiny_profile(executed):
    for notebook in NOTEBOOKS:
        node = nbformat.read(executed / f"{notebook}.ipynb", 4)
        assert all(cell.execution_count for cell in node.cells if cell.cell_type == "code")
        words = [o.text for cell in node.cells for o in cell.get("outputs", ()) if o.get("name") == "stderr"]
        assert not [text for text in words if "longer than max_length" not in text]  # the tiny model spells words out
        page = (executed / f"{notebook}.html").read_text()
        assert len(page) > 100_000
        assert "No description" not in page  # of a picture
    assert (executed / "models" / "tuned" / "model.safetensors").is_file()


def test_every_picture_is_legible_in_size_and_has_its_numbers(executed):
    pictures = sorted((executed / "figures").glob("*.png"))
    assert [p.stem for p in pictures] == sorted(p.stem for p in (executed / "figures").glob("*.json"))
    assert len(pictures) == 12
    for picture in pictures:
        with Image.open(picture) as image:
            assert image.width >= 600
            assert round(image.info["dpi"][0]) == 100
        content = json.loads(picture.with_suffix(".json").read_text())
        assert set(content) == {"settings", "versions", "numbers"}
        assert "seed" in content["settings"]


@pytest.mark.parametrize(("graded", "objective"), [(False, "graded_pairs"), (True, "graded_pairs"), (True, "simcse")])
def test_own_sentences_without_sports(tmp_path, tiny_folder, some_sentences, graded, objective, monkeypatch):
    """Another corpus by the parameters alone: no sport, no split, no pairs or such of two grades, and sentences
    that would like to run in the reader's browser. SimCSE is saved after fewer epochs than are looked at."""
    monkeypatch.chdir(ROOT)
    corpus, hostile = tmp_path / "mine.txt", [f"<script>alert() {sentence}" for sentence in some_sentences]
    content = "\n".join(hostile * 2)  # with repeats
    corpus.write_text(content)
    sides = zip(some_sentences[:36], some_sentences[36:])
    rows = "".join(f"{first},{second},{2 * (row % 2)}\n" for row, (first, second) in enumerate(sides))
    (tmp_path / "pairs.csv").write_text("sentence1,sentence2,grade\n" + rows)
    common = {
        "model": str(tiny_folder), "pooling": "mean", "corpus_path": str(corpus), "replicates": 10,
        "pairs_path": str(tmp_path / "pairs.csv") if graded else None, "cache_folder": None,
        "figures_folder": str(tmp_path / "figures"),
    }  # fmt: skip
    tuned = {
        "simcse_epochs": 3 if objective == "simcse" else 1, "other_temperature": None, "batch_size": 8, "saved_model": str(tmp_path / "tuned"),
        "look_at": hostile[0], "objective": objective, "epochs": 2,
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the repeats, and of pictures that are not shown
        pages = execute("baseline_comparison", common | {"comparison_model": None}, again=graded)
        pages += execute("fine_tune", common | tuned, again=graded)
    assert (tmp_path / "tuned" / "model.safetensors").is_file()
    assert (tmp_path / "tuned" / "thresholds.json").is_file() == graded
    assert corpus.read_text() == content
    assert "&lt;script&gt;alert(" in pages
    assert "<script>alert(" not in pages


def test_emoji_alone_and_a_model_without_dropout(tmp_path, monkeypatch, capsys):
    """Nothing to take out, no word to count, and nothing that SimCSE could teach: what can be shown is shown."""
    monkeypatch.chdir(ROOT)
    (tmp_path / "emoji.txt").write_text("\n".join(chr(128512 + n) + f" {n}" for n in range(60)))
    common = {
        "model": str(make_tiny_model(tmp_path / "model", dropout=0.0)), "pooling": "mean", "replicates": 10,
        "corpus_path": str(tmp_path / "emoji.txt"), "duplicates_from": None, "pairs_path": None, "cache_folder": None,
        "figures_folder": str(tmp_path / "figures"),
    }  # fmt: skip
    execute("baseline_comparison", common | {"comparison_model": None})
    execute("fine_tune", common | {"batch_size": 16, "saved_model": str(tmp_path / "tuned")})
    said = capsys.readouterr().out
    assert "has no dropout, so SimCSE has nothing to teach: left out" in said
    assert "There are no graded pairs to learn from" in said
    assert (tmp_path / "tuned" / "model.safetensors").is_file()


def test_an_error_in_a_cell_is_shown_and_stops_the_run(tmp_path, monkeypatch, capsys):
    runs = tmp_path / "runs"
    monkeypatch.setattr("sys.argv", ["", "--profile", "tiny", "--runs", str(runs), "--set", "grammar_folder=no"])
    with pytest.raises(SystemExit, match=r"ValueError: .*no holds no grammar file"):
        run_notebooks.main()
    assert "baseline_comparison" not in capsys.readouterr().out
    assert (runs / "generate_sport_sentences.html").is_file()
    assert not (runs / "data" / "sport_sentences.csv").exists()


@pytest.mark.parametrize(("name", "bad"), {"temperature": 0.0, "epochs": 0, "batch_size": 1, "facts": 2.0}.items())
def test_bad_parameters_stop_fine_tune_before_anything_is_written(tmp_path, name, bad):
    folders = {"saved_model": str(tmp_path / "m" / "x"), "figures_folder": str(tmp_path / "f")}
    with pytest.raises(ValueError, match=f"{name} is {bad}"):
        execute("fine_tune", folders | {name: bad}, upto=3)
    assert not list(tmp_path.iterdir())


def test_notebooks_and_command_have_the_same_defaults():
    """`python -m src.training` takes its defaults from the dataclasses; the parameters cells must say the same."""
    defaults = asdict(RunSettings()) | asdict(TrainingSettings())
    in_notebooks = {name: value for notebook in NOTEBOOKS for name, value in notebook_defaults(notebook).items()}
    assert {name: in_notebooks[name] for name in defaults} == defaults
    assert set(in_notebooks) == set(TYPES)  # so that every parameter is checked
    for notebook in NOTEBOOKS:
        values = notebook_defaults(notebook)
        assert values == {name: in_notebooks[name] for name in values}


@pytest.mark.parametrize(
    ("profile", "assignments", "message"),
    [
        ("embeded", [], "no profile 'embeded': known are embedded, original, tiny"),
        ("tiny", ["temprature=0.4"], "no notebook has a parameter 'temprature'"),
        ("tiny", ["temperature"], "'temperature' is no NAME=VALUE"),
        ("tiny", ["temperature=warm"], "temperature is 'warm', of type str: expected a number"),
        ("tiny", ["sheet_path=sheet.xlsx"], r"sheet_path is '.*sheet\.xlsx': the sheet is a CSV"),
        ("tiny", ["comparison_sentences=few"], "comparison_sentences is 'few', of type str: expected a whole number"),
    ],
)
def test_unknown_profiles_and_parameters_are_errors(profile, assignments, message):
    with pytest.raises(ValueError, match=message):
        notebook_parameters(profile, assignments, RUNS)


def test_misspelt_parameter_or_notebook_in_a_profile(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("fine_tune:\n  temprature: 0.4\n")
    with pytest.raises(ValueError, match="fine_tune has no parameter 'temprature', only objective"):
        notebook_parameters(str(file), [], RUNS)
    file.write_text("finetune:\n  temperature: 0.4\n")
    with pytest.raises(ValueError, match="no notebook is called 'finetune'"):
        notebook_parameters(str(file), [], RUNS)


@pytest.mark.parametrize("profile", ["embedded", *(path.stem for path in (ROOT / "profiles").glob("*.yaml"))])
def test_profiles_hold_only_known_parameters(profile, tmp_path):
    assert set(notebook_parameters(profile, [], tmp_path)) == set(NOTEBOOKS)


def test_outputs_are_redirected_and_can_be_set():
    parameters = notebook_parameters("embedded", ["epochs=1", "corpus_path=mine.txt", "comparison_model=null"], RUNS)
    here = Path().absolute()
    folders = {"data_folder": f"{here}/runs/data", "figures_folder": f"{here}/runs/figures"}
    assert parameters["generate_sport_sentences"] == folders
    assert parameters["baseline_comparison"]["comparison_model"] is None
    assert parameters["fine_tune"]["corpus_path"] == f"{here}/mine.txt"
    assert parameters["fine_tune"]["epochs"] == 1
    assert parameters["fine_tune"]["saved_model"] == f"{here}/runs/models/tuned"
    assert notebook_parameters("embedded", ["corpus_path=owner/name"], RUNS)["fine_tune"]["corpus_path"] == "owner/name"


def test_pairs_of_the_sport_corpus_are_not_of_another():
    given = notebook_parameters("embedded", ["corpus_path=mine.txt"], RUNS)
    assert given["baseline_comparison"]["pairs_path"] is given["fine_tune"]["pairs_path"] is None
    given = notebook_parameters("embedded", ["corpus_path=mine.txt", "pairs_path=own.csv"], RUNS)
    assert given["fine_tune"]["pairs_path"] == str(Path("own.csv").absolute())


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["corpus_path="], "corpus_path is empty: give a value"),
        (["pairs_path="], "pairs_path is empty: give a value, or none"),
        (["epochs=1", "epochs=3"], "epochs is set twice"),
        (["objective=supervised_simcse"], "name a file as triplets_path"),
    ],
)
def test_assignments_that_say_too_little_or_too_much(assignments, message):
    with pytest.raises(ValueError, match=message):
        notebook_parameters("embedded", assignments, RUNS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epochs=1 temperature=0.4", ["epochs=1", "temperature=0.4"]),
        ("look_at='Who won: Bob?' epochs=1", ["look_at=Who won: Bob?", "epochs=1"]),
        ('corpus_path="it\'s mine.csv"', ["corpus_path=it's mine.csv"]),
        (r"corpus_path=C:\\mine.csv look_at='#1?'", [r"corpus_path=C:\\mine.csv", "look_at=#1?"]),
        ("", []),
    ],
)
def test_assignments_are_split_as_a_shell_does(text, expected):
    assert split_assignments([text]) == expected


def test_a_text_is_taken_as_it_is():
    texts = ["look_at=He said: yes", "text_column=42", "model=None", "epochs=2", "learning_rate=1e-5"]
    values = run_notebooks.read_assignments([*texts, "gradient_caching=true"])
    assert values == {
        "look_at": "He said: yes", "text_column": "42", "model": None, "epochs": 2, "learning_rate": 1e-5,
        "gradient_caching": True,
    }  # fmt: skip


def test_an_apostrophe_wants_quotes():
    with pytest.raises(ValueError, match="double quotes around a value with an apostrophe"):
        split_assignments(["corpus_path=it's.csv"])


@pytest.mark.parametrize("notebook", CODE_CELLS)
def test_committed_form(notebook):
    raw = (ROOT / f"{notebook}.ipynb").read_text()
    node = nbformat.reads(raw, 4)
    code = [cell for cell in node.cells if cell.cell_type == "code"]
    low, high = CODE_CELLS[notebook]
    assert low <= len(code) <= high
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert "parameters" in code[0].metadata.tags
    assert notebook == STUDY or "headline" in code[-1].metadata.tags
    for line in filter(None, code[0].source.splitlines()):  # blank ones part groups
        _, value = re.fullmatch(r"(\w+) = ([^#]+?)(?:  # .+)?", line).groups()
        ast.literal_eval(value)  # literals only
    for cell in code:
        if not cell.source.startswith(("from", "import")) and cell is not code[0]:
            assert len(cell.source.splitlines()) <= 20
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
