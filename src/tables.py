"""Read a user's table: every row as it is in the file, or an error that names the line and what to do."""

import csv
import json
import re
import warnings
from pathlib import Path
from typing import TextIO

import pandas as pd
from datasets import load_dataset
from huggingface_hub.errors import HfHubHTTPError

from src.hub import SECONDS, ask_hub

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".parquet")
LONGEST_FIELD = 5  # lines; what is longer is taken for two stray quotes and the text between them


def read_table(path: Path | str) -> pd.DataFrame:
    """A file, a folder of files of one kind, or the train split of a hub dataset ("owner/name"); at least one row.

    Files of a folder that are named train, test and so on give a column `split`. A `.txt` file has one `sentence` a
    line. A `.csv` has commas, semicolons or tabs, whichever its header has most of.
    Raises `FileNotFoundError`, `ValueError`, or `ConnectionError` when the hub does not answer.
    """
    name, path = str(path), Path(path).expanduser()
    if not path.exists():
        if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) and path.suffix.lower() not in SUFFIXES:
            return _read_from_hub(name)
        raise FileNotFoundError(f"there is no file {path.absolute()}")
    files = [path] if path.is_file() else _files_of(path)
    kinds = sorted({file.suffix.lower() for file in files})
    if len(kinds) != 1 or kinds[0] not in SUFFIXES:
        content = f"holds {' and '.join(kinds) or 'no file'}" if path.is_dir() else f"is a {path.suffix or 'bare'} file"
        raise ValueError(f"{path} {content}: one of the formats that can be read is needed, {', '.join(SUFFIXES)}")
    tables = [_read_file(file, kinds[0]) for file in files]
    for file, table in zip(files, tables):
        if list(table) != list(tables[0]):
            raise ValueError(f"{file} has the columns {', '.join(table)}, {files[0]} has {', '.join(tables[0])}")
    splits = [split_of(file.stem) for file in files]
    if len({*splits} - {None}) > 1 and "split" not in with_columns(tables[0], "split"):
        if None in splits:
            raise ValueError(f"{files[splits.index(None)]} is beside files of splits: is it train, validation or test?")
        tables = [table.assign(split=split) for split, table in zip(splits, tables)]
    table = pd.concat(tables, ignore_index=True)
    if not len(table):
        raise ValueError(f"{path} has no rows")
    return table


def with_columns(table: pd.DataFrame, *names: str) -> pd.DataFrame:
    """The table with these columns under these names, where it has them: capitals and outer blanks do not matter."""
    own = {str(column).strip().casefold(): column for column in reversed(table.columns)}
    found = {own[name.strip().casefold()]: name for name in names if name.strip().casefold() in own}
    return table.rename(columns={column: name for column, name in found.items() if name not in table})


def split_of(name: str) -> str | None:
    """train, validation or test, if that is what the word means; of a file, what its name begins with."""
    words = {"train": "train", "training": "train", "test": "test", "testing": "test"}
    words |= dict.fromkeys(("validation", "valid", "val", "dev"), "validation")
    return words.get(re.split(r"[^a-z]", name.strip().casefold())[0])


def _files_of(folder: Path) -> list[Path]:
    """The tables in a folder. A warning names other files; what macOS and Excel leave beside a file is passed over."""
    visible = [file for file in sorted(folder.iterdir()) if not file.name.startswith((".", "~$"))]
    readmes = [file for file in visible if file.stem.casefold() in ("readme", "license") or ".guide" in file.suffixes]
    files = [file for file in visible if file.is_file() and file.suffix.lower() in SUFFIXES and file not in readmes]
    if others := [file.name for file in visible if file not in files + readmes]:
        warnings.warn(f"{folder}: {', '.join(others[:5])} cannot be read and were left out", stacklevel=3)
    return files


def _read_file(file: Path, kind: str) -> pd.DataFrame:
    if kind == ".parquet":
        try:
            table = pd.read_parquet(file)
            return table.astype({name: object for name in table if table[name].dtype == "category"})
        except (ValueError, OSError) as error:
            raise ValueError(f"{file} cannot be read: {str(error).strip()}") from None
    _check_bytes(file)
    with open(file, encoding="utf-8-sig", newline="" if kind in (".csv", ".tsv") else None) as lines:
        if kind == ".jsonl":
            return _read_json_lines(lines.read().split("\n"), file)
        if kind == ".txt":
            return _read_text(lines.read().split("\n"), file)
        return _read_delimited(lines, file, kind)


def _check_bytes(file: Path) -> None:
    """The readers' own errors name no line, and they let a NUL through."""
    with open(file, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise ValueError(f"{file} is UTF-16. Save the file in UTF-8 (in Excel: CSV UTF-8)")
            if b"\0" in line:
                raise ValueError(f"{file}, line {number}: a NUL byte; is it a text file, in UTF-8?")
            try:
                line.decode()
            except UnicodeDecodeError as error:
                wrong = f"byte {line[error.start]:#x} is no UTF-8"
                raise ValueError(f"{file}, line {number}: {wrong}. Save the file in UTF-8") from None


def _read_text(lines: list[str], file: Path) -> pd.DataFrame:
    if lines and not lines[-1]:
        lines = lines[:-1]
    if 2 * sum("\t" in line for line in lines) >= len(lines) > 0:
        raise ValueError(f"{file} is a table with tabs: rename it to .tsv, and set text_column")
    if lines and lines[0].startswith("{") and lines[0].rstrip().endswith("}"):
        raise ValueError(f"{file} has one JSON object a line: rename it to .jsonl")
    if file.with_suffix("").suffix.lower() in SUFFIXES:
        raise ValueError(f"{file} is a {file.with_suffix('').suffix} file by its name: take .txt away from it")
    return pd.DataFrame({"sentence": lines}, dtype=str)


def _read_json_lines(lines: list[str], file: Path) -> pd.DataFrame:
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line) if line.strip() else None
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError(f"{file}, line {number}: half a character, such as half an emoji, at a cut") from None
        except ValueError as error:
            raise ValueError(f"{file}, line {number}: {error}. Each line must be one object in braces") from None
        objects = row if isinstance(row, list) else [row] if row is not None else []
        if wrong := [item for item in objects if not isinstance(item, dict)]:
            raise ValueError(f"{file}, line {number}: {wrong[0]!r:.40} is no object in braces")
        rows += objects
    return pd.DataFrame(rows)


def _read_delimited(lines: TextIO, file: Path, kind: str) -> pd.DataFrame:
    rows = _rows_by_line(lines, file, kind)
    if not rows:
        raise ValueError(f"{file} is empty")
    header = [name.strip() or f"column {number}" for number, name in enumerate(rows.pop(next(iter(rows))), 1)]
    _check_header(header, file)
    filled = [_fitted(cells, header, f"{file}, line {line}") for line, cells in rows.items()]
    table = pd.DataFrame(filled, columns=header)
    _check_short_rows(rows, table, file)
    return table.apply(_as_numbers)


def _rows_by_line(lines: TextIO, file: Path, kind: str) -> dict[int, list[str]]:
    """The cells of each row that is not blank, by the line where it begins. pandas is not used: it turns a column
    without a name into an index, and all text between two stray quotes into one sentence."""
    header_line = next((line for line in lines if line.strip()), "")
    outside_quotes = re.sub('"[^"]*"', "", header_line)
    delimiter = "\t" if kind == ".tsv" else max(",;\t", key=outside_quotes.count)  # the comma where there is none
    lines.seek(0)
    reader, rows, spread, start = csv.reader(lines, delimiter=delimiter, strict=True), {}, [], 1
    try:
        for cells in reader:
            below = reader.line_num - start
            if below >= LONGEST_FIELD:
                stray = f"a quote opens here and closes {below} lines below. Take out the stray quote"
                raise ValueError(f"{file}, line {start}: {stray}")
            if any(cell.strip() for cell in cells):  # Excel leaves rows of delimiters
                rows[start] = cells
                if below:
                    spread.append(start)
            start = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{file}, line {start}: {error}. In a sentence that stands in quotes, each quote is written twice"
        ) from None
    if spread:
        warnings.warn(f"{file}: {len(spread):,} rows over several lines, such as line {spread[0]}", stacklevel=2)
    return rows


def _check_header(header: list[str], file: Path) -> None:
    if twice := {name for name in header if header.count(name) > 1}:
        raise ValueError(f"{file}: the header has {min(twice)!r} twice")
    if len(header) == 1 and (re.search(r"[,;|\t]", header[0]) or len(header[0].split()) > 4):
        raise ValueError(
            f"{file}: one column, whose name is {header[0][:60]!r}. Give it a name in line 1, or put commas between "
            "columns"
        )
    if numbers := [name for name in header if re.fullmatch(r"[\d.,]+", name)]:
        raise ValueError(f"{file}, line 1: a column named {numbers[0]!r}. Line 1 must name the columns")


def _check_short_rows(rows: dict[int, list[str]], table: pd.DataFrame, file: Path) -> None:
    """Excel drops empty cells at the end of a row. A sentence that was broken in two lines makes two short rows, whose
    cells are in the wrong columns; a wrong delimiter makes all rows short."""
    width, reason = table.shape[1], None
    short = {line: len(cells) for line, cells in rows.items() if len(cells) < width}
    for line, cells in short.items():
        if len(short) == len(table):
            reason = "as in all rows. Is it the header's delimiter?"
        elif cells + short.get(line + 1, 0) == width + 1 and (table.iloc[:, cells:] != "").sum().all():
            reason = "and as few in the next. Put quotes around a sentence with a line break, or write the empty cells"
        if reason:
            raise ValueError(f"{file}, line {line}: {cells} of {width} columns, {reason}")
    if short:
        lines = f"{len(short):,} rows have fewer cells than the header, such as line {min(short)}"
        warnings.warn(f"{file}: {lines}: the missing ones count as empty", stacklevel=2)


def _fitted(row: list[str], header: list[str], place: str) -> list[str]:
    """The row with as many cells as the header: Excel drops empty cells at the end, or adds some."""
    while len(row) > len(header) and not row[-1].strip():
        row = row[:-1]
    if len(row) > len(header):
        raise ValueError(
            f"{place}: {len(row)} columns, and {len(header)} in the header. Put double quotes around a sentence with "
            "commas or semicolons in it, or save the sentences as .txt, one a line"
        )
    return row + [""] * (len(header) - len(row))


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
