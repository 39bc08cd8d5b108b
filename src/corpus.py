"""A user's own sentences and graded pairs: read and check them, remove duplicates, split and draw."""

import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import load_dataset
from datasketch import MinHash, MinHashLSH
from huggingface_hub.errors import HfHubHTTPError

from src.grammar import GRAMMAR_FOLDER
from src.hub import SECONDS, ask_hub
from src.sentences import graded_pairs

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".parquet")
STSB = "sentence-transformers/stsb"


def load_sentences(
    path: Path | str, text_column: str = "sentence", duplicates_from: float | None = None
) -> pd.DataFrame:
    """Read a corpus into a table with a column `sentence`; other columns are kept, `sport` and `event` as text.

    `path` is a file, a folder of files of one kind, or the train split of a hub dataset ("owner/name"). A `.txt` file
    has one sentence a line. Where `text_column` is missing, the only text column there is, is taken, with a warning.

    Blank rows are left out. With `duplicates_from`, so are `near_duplicates` of that similarity: in training each would
    be a false negative of its twin, and a test sentence whose twin was trained on is not held out. Warnings count them.

    Raises `FileNotFoundError` or `ValueError` naming the line or row and what is wrong with it, `ConnectionError` when
    the hub does not answer. Nothing is ever written to the file.
    """
    table = _with_sentence_column(_read(path), path, text_column)
    blank = table["sentence"].map(lambda sentence: isinstance(sentence, str) and not sentence.strip())
    if blank.any():
        warnings.warn(f"{path}: {blank.sum():,} blank rows of {len(table):,} were left out", stacklevel=2)
    check_sentences(table["sentence"].where(~blank, "blank").tolist(), str(path), at_least=0)  # rows by their number
    table = table[~blank].reset_index(drop=True)
    if duplicates_from is not None and (repeats := near_duplicates(table["sentence"].tolist(), duplicates_from)):
        warnings.warn(
            f"{path}: {len(repeats):,} sentences of {len(table):,} repeat an earlier one and were left out, such as "
            f"{table['sentence'][repeats[0]][:80]!r} (duplicates_from = {duplicates_from}; None keeps them)",
            stacklevel=2,
        )
        table = table.drop(index=repeats).reset_index(drop=True)
    check_sentences(table["sentence"].tolist(), str(path))
    groups = [column for column in ("sport", "event") if column in table]
    return table.assign(**{column: table[column].fillna("").astype(str) for column in groups})


def load_pairs(path: Path | str, seed: int = 0) -> pd.DataFrame:
    """Read graded pairs: columns `sentence1`, `sentence2`, `grade`, and any others, as `graded_pairs` makes them.

    Grades may be on any scale, such as 0 to 4, 0 to 1, or 0 and 1: a column `relatedness` is added, which is 0 for the
    lowest grade of the file and 1 for the highest. Without a column `kind` all pairs are `balanced`. Without a column
    `split` half of them are `train`, a quarter `validation` and a quarter `test`, drawn with the seed; pairs with the
    same first sentence stay together.

    Raises `ValueError` naming the row of a grade that is no number, of a pair that has two grades, or of an empty
    sentence, and when all grades are equal. Pairs whose grade is empty are left out, with a warning that counts them.
    """
    table = _read(path)
    if missing := {"sentence1", "sentence2", "grade"} - set(table):
        raise ValueError(f"{path} has no column {sorted(missing)[0]!r}, only {', '.join(table)}")
    for column in ("sentence1", "sentence2"):
        check_sentences(table[column].tolist(), f"{path}, {column}")
    empty = table["grade"].isna() | (table["grade"].astype(str).str.strip() == "")
    if empty.any():
        warnings.warn(
            f"{path}: {(~empty).sum():,} pairs are graded, {empty.sum():,} are not and were left out", stacklevel=2
        )
        table = table[~empty].reset_index(drop=True)
    grades = table["grade"] = _grades(table, path)
    table["relatedness"] = (grades - grades.min()) / (grades.max() - grades.min())
    if "kind" not in table:
        table["kind"] = "balanced"
    if "split" not in table:
        first = pd.factorize(table["sentence1"])[0]
        drawn = np.random.default_rng(seed).choice(
            ["train", "validation", "test"], first.max() + 1, p=[0.5, 0.25, 0.25]
        )
        table["split"] = drawn[first]
    return table


def _grades(pairs: pd.DataFrame, path: Path | str) -> pd.Series:
    """The grades as numbers. Raises `ValueError` for what is none, for a pair that has two, and when all are equal."""
    grades = pd.to_numeric(pairs["grade"], errors="coerce")
    if len(wrong := np.flatnonzero(~np.isfinite(grades))):
        raise ValueError(f"{path}, row {wrong[0] + 1}: the grade is {pairs['grade'].iloc[wrong[0]]!r}, not a number")
    if grades.nunique() < 2:
        raise ValueError(f"{path}: {len(grades)} graded pairs, all of one grade: nothing can be learnt of them")
    sides = np.sort(pairs[["sentence1", "sentence2"]].to_numpy(str), axis=1)
    by_pair = grades.groupby([sides[:, 0], sides[:, 1]]).transform("nunique")
    if len(twice := np.flatnonzero(by_pair > 1)):
        raise ValueError(f"{path}, row {twice[0] + 1}: the pair has two grades, here and in row {twice[1] + 1}")
    return grades


def general_language_pairs(seed: int = 0) -> tuple[pd.DataFrame, str]:
    """Graded pairs that are not about sport, and where they are from: the test part of STS-B where the hub answers,
    else 400 pairs of everyday topics from data/control."""
    try:
        ask_hub(lambda hub: hub.dataset_info(STSB, timeout=SECONDS))
    except (ConnectionError, HfHubHTTPError):
        pairs = graded_pairs("test", 80, seed, GRAMMAR_FOLDER.parent / "control")
        pairs = pairs[pairs["kind"] == "balanced"].reset_index(drop=True)
        return pairs, "control set of everyday topics (no hub for STS-B)"
    pairs = load_dataset(STSB, split="test").to_pandas().rename(columns={"score": "grade"})
    return pairs.assign(kind="balanced"), "STS-B test"


def _with_sentence_column(table: pd.DataFrame, path: Path | str, text_column: str) -> pd.DataFrame:
    texts = [name for name in table if pd.api.types.is_string_dtype(table[name])]
    if text_column not in table and len(texts) == 1:
        if texts[0] != "text":
            warnings.warn(f"{path} has no column {text_column!r}: {texts[0]!r} holds the sentences", stacklevel=3)
        text_column = texts[0]
    if text_column not in table:
        raise ValueError(f"{path} has no column {text_column!r}, only {', '.join(map(str, table))}: set text_column")
    if text_column == "sentence":
        return table
    return table.drop(columns="sentence", errors="ignore").rename(columns={text_column: "sentence"})


def _read(path: Path | str) -> pd.DataFrame:
    name, path = str(path), Path(path)
    if not path.exists():
        if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) and path.suffix.lower() not in SUFFIXES:
            return _read_from_hub(name)
        raise FileNotFoundError(f"no file {path} (the sport corpus is made by generate_sport_sentences.ipynb)")
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
    kinds = sorted({file.suffix.lower() for file in files})
    if len(kinds) != 1 or kinds[0] not in SUFFIXES:
        content = f"holds {' and '.join(kinds) or 'no file'}" if path.is_dir() else f"is a {path.suffix or 'bare'} file"
        raise ValueError(f"{path} {content}: one of the formats that can be read is needed, {', '.join(SUFFIXES)}")
    table = pd.concat([_read_file(file) for file in files], ignore_index=True)
    if not len(table):
        raise ValueError(f"{path} has no rows")
    return table


def _read_file(file: Path) -> pd.DataFrame:
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        return pd.read_parquet(file)
    _check_bytes(file)
    try:
        if suffix == ".txt":
            with open(file, encoding="utf-8-sig") as lines:  # without a byte-order mark
                return pd.DataFrame({"sentence": [line.rstrip("\n") for line in lines]})
        if suffix == ".jsonl":
            with open(file, encoding="utf-8-sig") as lines:
                return pd.read_json(lines, lines=True, dtype=False)
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
            separator = "\t" if suffix == ".tsv" else ","
            # the sentence "NA" is a sentence, and no column is an index
            return pd.read_csv(file, sep=separator, keep_default_na=False, index_col=False, encoding="utf-8-sig")
    except (ValueError, pd.errors.ParserWarning) as error:
        raise ValueError(f"{file} cannot be read: {str(error).strip()}") from None


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


def check_sentences(sentences: Sequence, source: str = "the corpus", at_least: int = 2) -> None:
    """Raise `ValueError` unless there are as many sentences or more and each is a text that is not blank."""
    if len(sentences) < at_least:
        raise ValueError(f"{source} has {len(sentences)} sentences: at least {at_least} are needed")
    for row, sentence in enumerate(sentences, 1):
        if not isinstance(sentence, str):
            raise ValueError(f"{source}, row {row}: {sentence!r} is no text but {type(sentence).__name__}")
        if not sentence.strip():
            raise ValueError(f"{source}, row {row}: the sentence is empty")


def near_duplicates(sentences: Sequence[str], similarity: float = 0.9) -> list[int]:
    """Rows that repeat an earlier row, which is not listed itself, but for a few letters.

    Two sentences are alike when their digits are the same and of the runs of five characters that either has, both have
    the share `similarity` (Jaccard), in [0.8, 1]. Case and spaces do not count. At 0.9 about one letter in a hundred
    may differ. Candidates are found by MinHash (Broder 1997), all but 1 in 10,000 at a similarity of 0.9 and 1 in 20 at
    0.8; then their runs are compared.
    """
    if not 0.8 <= similarity <= 1:
        raise ValueError(f"similarity is {similarity}: from 0.8 on two sentences are near-duplicates, 1 is the most")

    def runs(sentence: str, length: int = 5) -> set[str]:
        text = " ".join(sentence.casefold().split())
        digits = "".join(filter(str.isdigit, text))  # in every run: other digits are another fact
        return {f"{digits} {text[start : start + length]}" for start in range(max(1, len(text) - length + 1))}

    index, repeats = MinHashLSH(num_perm=128, params=(16, 8)), []
    signatures = MinHash.generator(([run.encode() for run in runs(sentence)] for sentence in sentences), num_perm=128)
    for row, (sentence, signature) in enumerate(zip(sentences, signatures)):
        own = runs(sentence)
        candidates = (runs(sentences[earlier]) for earlier in index.query(signature))
        if any(len(own & other) >= similarity * len(own | other) for other in candidates):
            repeats.append(row)
        else:
            index.insert(row, signature)
    return repeats


def describe(sentences: Sequence[str], token_counts: Sequence[int], max_length: int) -> dict[str, str]:
    """A report of what was read: sizes, repeats, lengths, what will be cut, scripts. `token_counts` are those of
    `Encoder.count_tokens`."""
    words = [len(sentence.split()) for sentence in sentences]
    scripts = Counter()
    for letter, count in Counter("".join(sentences)).items():
        if letter.isalpha():
            scripts[unicodedata.name(letter, "UNKNOWN").split()[0].lower()] += count
    return {
        "sentences": f"{len(sentences):,}",
        "repeats": f"{len(sentences) - len(set(sentences)):,}",
        "words": f"{np.median(words):.0f} in the median, {min(words)} to {max(words)}",
        "tokens": f"{np.median(token_counts):.0f} in the median, {min(token_counts)} to {max(token_counts)}",
        f"longer than {max_length} tokens": f"{sum(count > max_length for count in token_counts):,}",
        "letters": ", ".join(f"{script} {n / scripts.total():.1%}" for script, n in scripts.most_common(5)),
    }


def split_sentences(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Add a column `split` (70 % train, 10 % validation, 20 % test, drawn with the seed) unless there is one.

    Raises `ValueError` when there is nothing to train on or nothing to test on.
    """
    if "split" in table:
        names = set(map(str, table["split"]))
        if not {"train", "test"} <= names:
            raise ValueError(f"column split holds {', '.join(sorted(names))}: train and test are needed")
        return table
    if len(table) < 5:
        raise ValueError(f"{len(table)} sentences are too few to train on some and test on others")
    _, number = np.unique(table["sentence"].to_numpy(str), return_inverse=True)  # a repeated one goes to one split
    rank = (np.random.default_rng(seed).permutation(number.max() + 1) / (number.max() + 1))[number]
    return table.assign(split=np.select([rank < 0.7, rank < 0.8], ["train", "validation"], "test"))


def draw_sentences(table: pd.DataFrame, split: str, count: int, seed: int = 0) -> pd.DataFrame:
    """At most `count` rows of the split in random order, no sentence twice."""
    rows = table[table["split"] == split].drop_duplicates("sentence").sort_values("sentence")
    return rows.iloc[np.random.default_rng(seed).permutation(len(rows))[:count]].reset_index(drop=True)
