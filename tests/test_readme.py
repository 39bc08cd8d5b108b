"""README and docs: what they link to, call and set exists. Their tables are generated (tests/test_results.py)."""

import importlib
import re

import pytest
import yaml

from run_notebooks import NOTEBOOKS, notebook_defaults, split_assignments
from src.records import ROOT
from src.settings import read_profile

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "data" / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_commands_and_parameters_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("https://") or (page.parent / target).exists(), target
    targets = set(" ".join(re.findall(r"^([\w -]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)).split())
    assert set(re.findall(r"(?:^|`|^    )make ([a-z-]+)", text, re.MULTILINE)) <= targets
    parameters = {name for notebook in NOTEBOOKS for name in notebook_defaults(notebook)}
    for assignments in re.findall(r'SET="([^"]+)"', text):
        assert {assignment.split("=")[0] for assignment in split_assignments([assignments])} <= parameters
    for module in re.findall(r"python -m ((?:src|experiments|benchmarks)\.\w+)", text):
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module


def test_the_benchmarks_can_be_imported():
    for file in (ROOT / "benchmarks").glob("*.py"):
        importlib.import_module(f"benchmarks.{file.stem}")


def test_the_profile_of_the_page_on_scaling_is_one(tmp_path):
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "scaling.md").read_text(), re.DOTALL)
    (tmp_path / "mine.yaml").write_text(block)
    run, settings = read_profile(tmp_path / "mine.yaml")
    given = yaml.safe_load(block)["fine_tune"]
    assert (run.corpus_path, settings.batch_size) == (given["corpus_path"], given["batch_size"])


def test_python_in_the_pages_runs_as_far_as_its_imports():
    for page in PAGES:
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
            exec("\n".join(line for line in block.splitlines() if line.startswith(("from src", "import"))), {})
