"""Read a user's table: every row as it is in the file, or an error that names the line and what to do."""

import csv
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from datasets import load_dataset
from huggingface_hub.errors import HfHubHTTPError

from src.hub import SECONDS, ask_hub

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".parquet")
LONGEST_FIELD = 10  # lines; a longer one is two stray quotes and what lies between


def read_table(path: Path | str) -> pd.DataFrame:
    """A file, a folder of files of one kind, or the train split of a hub dataset ("owner/name"); at least one row.

    A `.txt` file has one `sentence` a line. A `.csv` has commas, semicolons or tabs, whichever its header has most of.
    Raises `FileNotFoundError`, `ValueError`, or `ConnectionError` when the hub does not answer.
    """
    name, path = str(path), Path(path).expanduser()
    if not path.exists():
        if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) and path.suffix.lower() not in SUFFIXES:
            return _read_from_hub(name)
        raise FileNotFoundError(f"there is no file {path.absolute()}")
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
    kinds = sorted({file.suffix.lower() for file in files})
    if len(kinds) != 1 or kinds[0] not in SUFFIXES:
        content = f"holds {' and '.join(kinds) or 'no file'}" if path.is_dir() else f"is a {path.suffix or 'bare'} file"
        raise ValueError(f"{path} {content}: one of the formats that can be read is needed, {', '.join(SUFFIXES)}")
    table = pd.concat([_read_file(file, kinds[0]) for file in files], ignore_index=True)
    if not len(table):
        raise ValueError(f"{path} has no rows")
    return table


def _read_file(file: Path, kind: str) -> pd.DataFrame:
    if kind != ".parquet":
        _check_bytes(file)
    if kind in (".csv", ".tsv"):
        return _read_delimited(file, kind)
    try:
        if kind == ".parquet":
            return pd.read_parquet(file)
        with open(file, encoding="utf-8-sig") as lines:  # without a byte-order mark
            if kind == ".jsonl":
                return pd.read_json(lines, lines=True, dtype=False)
            return pd.DataFrame({"sentence": [line.rstrip("\n") for line in lines]})
    except (ValueError, OSError) as error:
        raise ValueError(f"{file} cannot be read: {str(error).strip()}") from None


def _check_bytes(file: Path) -> None:
    """The readers' own errors name no line, and they let a NUL through."""
    with open(file, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if b"\0" in line:
                raise ValueError(f"{file}, line {number}: a NUL byte; is it a text file, in UTF-8?")
            try:
                line.decode()
            except UnicodeDecodeError as error:
                wrong = f"byte {line[error.start]:#x} is no UTF-8"
                raise ValueError(f"{file}, line {number}: {wrong}. Save the file in UTF-8") from None


def _read_delimited(file: Path, kind: str) -> pd.DataFrame:
    """Row by row: pandas makes an index of what has no header, and one sentence of all between two stray quotes."""
    with open(file, encoding="utf-8-sig", newline="") as lines:
        header_line = lines.readline()
        delimiter = "\t" if kind == ".tsv" else max(",;\t", key=header_line.count)  # the comma where there is none
        lines.seek(0)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        rows, line = [], 1
        try:
            for row in reader:
                start, line = line, reader.line_num + 1
                if row:
                    rows.append(row)
                    _check_row(row, rows[0], f"{file}, line {start}", reader.line_num - start + 1)
        except csv.Error as error:
            raise ValueError(
                f"{file}, line {line}: {error}. In a sentence that stands in quotes, each quote is written twice"
            ) from None
    if not rows:
        raise ValueError(f"{file} is empty")
    header = [name.strip() or f"column {number}" for number, name in enumerate(rows[0], 1)]
    if twice := {name for name in header if header.count(name) > 1}:
        raise ValueError(f"{file}: the header has {min(twice)!r} twice")
    return pd.DataFrame(rows[1:], columns=header).apply(_as_numbers)


def _check_row(row: Sequence[str], header: Sequence[str], place: str, lines: int) -> None:
    if len(row) != len(header):
        raise ValueError(
            f"{place}: {len(row)} columns, and {len(header)} in the header. Put double quotes around a sentence with "
            "commas or semicolons in it, or save the sentences as .txt, one a line"
        )
    if lines > LONGEST_FIELD:
        raise ValueError(f"{place}: a quote opens here and closes {lines - 1} lines below. Take out the stray quote")
    if lines > 1:
        warnings.warn(f"{place}: one row over {lines} lines, read as one", stacklevel=2)


def _as_numbers(column: pd.Series) -> pd.Series:
    """The column as numbers if all of it is; the sentence "007" among words stays what it is."""
    numbers = pd.to_numeric(column, errors="coerce")
    return column if numbers.isna().any() else numbers


def _read_from_hub(name: str) -> pd.DataFrame:
    try:
        ask_hub(lambda hub: hub.dataset_info(name, timeout=SECONDS))
    except HfHubHTTPError as error:
        reason = str(error).splitlines()[0]
        raise FileNotFoundError(f"{name} is no file here, and no dataset of the hub: {reason}") from None
    except ConnectionError as error:
        if "offline" not in str(error).lower():  # as HF_HUB_OFFLINE=1 says; then what was downloaded before is used
            raise ConnectionError(
                f"{name} is no file here, and the hub, which may have it, did not answer ({error}). With "
                "HF_HUB_OFFLINE=1 set, what was downloaded before is used"
            ) from None
    try:
        return load_dataset(name, split="train").to_pandas()
    except ValueError as error:  # no such split, or several configurations
        reason = str(error).splitlines()[0]
        raise ValueError(f"{name}: {reason} Download what you want of it, and name the file") from None
