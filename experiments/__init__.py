"""The studies behind the notebooks. Here is what they share: runs divided between processes, and files of results."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.records import library_versions

PART_HELP = "which of how many processes this is, as in 1/2: each has its share of the runs"


def runs_to_do(grid: Sequence, part: str = "1/1", done: Sequence = ()) -> list:
    """This process's share of the runs in `grid` that are not done. Part "1/2" is the first of two processes; a run
    that is in the grid twice counts once."""
    number, count = map(int, part.split("/"))
    if not 1 <= number <= count:
        raise ValueError(f"part is {part}: 1/{count} to {count}/{count} are the parts of {count} processes")
    distinct = [run for place, run in enumerate(grid) if run not in grid[:place]]
    return [run for run in distinct[number - 1 :: count] if run not in done]


def append_line(file: Path, line: dict) -> None:
    """Add a run to a file of JSON lines, in one write: two processes can share the file and a kill leaves no half
    line."""
    with open(file, "ab", buffering=0) as lines:
        lines.write((json.dumps(line | {"versions": library_versions()}) + "\n").encode())


def read_lines(file: Path) -> list[dict]:
    """The runs in a file of JSON lines; none where there is no file."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def mean_and_range(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, lowest and highest of the seeds."""
    return float(np.mean(values)), float(min(values)), float(max(values))
