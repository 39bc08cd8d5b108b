"""Execute the notebooks in order with a profile's parameters; everything they write goes under one folder.

--in-place re-executes the committed notebooks, the study's among them, at their own values.
"""

import argparse
import ast
import resource
import shlex
import sys
import time
from html import escape
from pathlib import Path

import nbformat
import papermill
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError

from src.records import ROOT
from src.settings import check_parameters, is_text, read_yaml, without_foreign_pairs
from src.tables import SUFFIXES

NOTEBOOKS = ("generate_sport_sentences", "baseline_comparison", "fine_tune")
STUDY = "experiments/study"
# what the notebooks read and write below the root in Jupyter, and below the runs folder here
REDIRECTED = ("data_folder", "figures_folder", "corpus_path", "pairs_path", "saved_model", "cache_folder")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="embedded", help="a name in profiles/, or a YAML file")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder for all that is written")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=VALUE", help="parameters for this run; quotes as in a shell"
    )
    parser.add_argument("--notebooks", nargs="*", choices=NOTEBOOKS, default=NOTEBOOKS, help="only these")
    parser.add_argument("--in-place", action="store_true", help="refresh what is committed, at its own values")
    options = parser.parse_args()
    try:
        if options.in_place:
            parameters = {notebook: {} for notebook in (*NOTEBOOKS, STUDY)}
        else:
            given = notebook_parameters(options.profile, split_assignments(options.set), options.runs)
            parameters = {notebook: given[notebook] for notebook in options.notebooks}
        run(parameters, options.runs, options.in_place)
    except (ValueError, OSError, PapermillExecutionError) as error:
        sys.exit(f"\nmake: stopped. {error}")


def notebook_parameters(profile: str, assignments: list[str], runs: Path) -> dict[str, dict]:
    """Parameters by notebook: redirected outputs, then the profile, then the assignments.

    Raises `ValueError` for a profile, a section or a parameter that does not exist.
    """
    sections, overrides = read_profile(profile), read_assignments(assignments)
    parameters, everywhere = {}, set()
    runs = str(Path(runs).absolute())
    for notebook in NOTEBOOKS:
        defaults = notebook_defaults(notebook)
        everywhere |= set(defaults)
        given = sections.get(notebook) or {}
        if unknown := set(given) - set(defaults):
            raise ValueError(f"{profile}: {notebook} has no parameter {unknown.pop()!r}, only {', '.join(defaults)}")
        outputs = {name: f"{runs}/{defaults[name].removeprefix('runs/')}" for name in REDIRECTED if name in defaults}
        given = given | {name: overrides[name] for name in defaults if name in overrides}
        given = without_foreign_pairs(given)
        check_parameters(defaults | given)
        parameters[notebook] = outputs | {name: from_here(name, value) for name, value in given.items()}
    if unknown := set(overrides) - everywhere:
        raise ValueError(f"no notebook has a parameter {unknown.pop()!r}, only {', '.join(sorted(everywhere))}")
    return parameters


def from_here(name: str, value: object) -> object:
    """A path that the user gave is one from the folder they are in; the notebooks run in the repository's."""
    if isinstance(value, str) and name.endswith(("_path", "_folder", "model")):
        path = Path(value).expanduser()
        if path.exists() or path.suffix in SUFFIXES or name.endswith("_folder") or name == "saved_model":
            return str(path.absolute())
    return value


def notebook_defaults(notebook: str) -> dict:
    """The values in a notebook's parameters cell."""
    cell = papermill.inspect_notebook(str(ROOT / f"{notebook}.ipynb"))
    return {name: ast.literal_eval(parameter["default"]) for name, parameter in cell.items()}


def read_profile(profile: str) -> dict[str, dict]:
    """The sections of a profile; `embedded` has none: it is the values that the notebooks come with."""
    if profile == "embedded":
        return {}
    file = Path(profile).expanduser() if profile.endswith((".yaml", ".yml")) else ROOT / "profiles" / f"{profile}.yaml"
    if not file.is_file():
        known = ", ".join(["embedded", *sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml"))])
        raise ValueError(f"no profile {profile!r}: known are {known}, or the path of a YAML file")
    sections = read_yaml(file)
    if unknown := set(sections) - set(NOTEBOOKS):
        raise ValueError(f"{file}: no notebook is called {unknown.pop()!r}, only {', '.join(NOTEBOOKS)}")
    return sections


def split_assignments(texts: list[str]) -> list[str]:
    """SET="name=value other='two words'" comes as one text from make, and as several from a shell."""
    try:
        assignments = []
        for text in texts:
            lexer = shlex.shlex(text, posix=True)
            lexer.whitespace_split, lexer.commenters, lexer.escape = True, "", ""  # C:\\mine.csv, and #1, are texts
            assignments += lexer
        return assignments
    except ValueError as error:
        raise ValueError(f"{' '.join(texts)}: {error}. Put double quotes around a value with an apostrophe") from None


def read_assignments(assignments: list[str]) -> dict:
    """NAME=VALUE, the value as Python or YAML writes it."""
    values = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise ValueError(f"{assignment!r} is no NAME=VALUE")
        if name in values:
            raise ValueError(f"{name} is set twice")
        if value.casefold() in ("none", "null"):
            values[name] = None
        elif is_text(name):
            values[name] = value
        else:
            try:
                values[name] = ast.literal_eval(value)  # to YAML 1e-5 is text
            except (ValueError, SyntaxError):
                values[name] = {"true": True, "false": False}.get(value.casefold(), value)
    return values


def run(parameters: dict[str, dict], runs: Path, in_place: bool) -> None:
    headlines, nodes = [], {}
    for number, notebook in enumerate(parameters, 1):
        print(f"\n[{number}/{len(parameters)}] {notebook}.ipynb", flush=True)
        start = time.monotonic()
        nodes[notebook] = node = execute(notebook, parameters[notebook], runs)
        print(f"      done in {(time.monotonic() - start) / 60:.1f} minutes", flush=True)
        cells = [cell for cell in node.cells if "headline" in cell.metadata.get("tags", [])]
        headlines += [output.text for cell in cells for output in cell.outputs if output.get("name") == "stdout"]
    if in_place:  # all or none
        for notebook, node in nodes.items():
            commit_form(node)
            nbformat.write(node, ROOT / f"{notebook}.ipynb")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print("\n" + "\n".join(headlines))
    print(f"Look at {runs}/*.html, {runs}/figures and {runs}/models. Peak memory of a notebook: {peak:.1f} GB.")


def execute(notebook: str, parameters: dict, runs: Path) -> nbformat.NotebookNode:
    """Run a notebook in a process of its own, and write it and its HTML to `runs`, also where it stopped half way."""
    executed = runs / f"{notebook}.ipynb"
    executed.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            ROOT / f"{notebook}.ipynb", executed, parameters, kernel_name="python3", cwd=ROOT, progress_bar=False,
            stderr_file=sys.stderr, extra_arguments=["--log-level=40"],
        )  # fmt: skip
    finally:
        node = tidy(nbformat.read(executed, as_version=4))
        nbformat.write(node, executed)
        executed.with_suffix(".html").write_text(page_of(node), encoding="utf-8")
    return node


def page_of(node: nbformat.NotebookNode) -> str:
    """The notebook as HTML, with the alternative texts of its pictures, for which nbconvert puts other words."""
    page, _ = HTMLExporter().from_notebook_node(node)
    outputs = [output for cell in node.cells for output in cell.get("outputs", ())]
    for text in [output.metadata["image/png"]["alt"] for output in outputs if "image/png" in output.get("data", {})]:
        page = page.replace("No description has been provided for this image", escape(text), 1)
    return page


def tidy(node: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop the progress bars; other words on stderr stay. A picture's alternative text is the heading above it."""
    heading = ""
    for cell in node.cells:
        headings = [line.lstrip("# ") for line in cell.source.splitlines() if line.startswith("#")]
        if cell.cell_type == "markdown":
            heading = headings[-1] if headings else heading
        else:
            cell.outputs = [
                output
                for output in cell.outputs
                if not (output.get("name") == "stderr" and ("\r" in output.text or not output.text.strip()))
            ]
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.metadata["image/png"] = {"alt": heading}
    return node


def commit_form(node: nbformat.NotebookNode) -> None:
    """Strip what differs from machine to machine, keep outputs and counts."""
    from nbstripout import strip_output

    keys = ["metadata.papermill", "cell.metadata.papermill", "cell.metadata.execution"]
    node.metadata.get("language_info", {}).pop("version", None)
    strip_output(node, keep_output=True, keep_count=True, keep_id=True, extra_keys=keys)


if __name__ == "__main__":
    main()
