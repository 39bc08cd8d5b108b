"""A user's own sentences and graded pairs: read and check them, remove duplicates, split and draw."""

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
from src.sentences import KINDS, graded_pairs
from src.tables import read_table

ALL_GRADES = range(5)
NO_GRADE = ("", "na", "n/a", "nan", "none", "null", "-")  # what people write where they give no grade
FEWEST = 20  # sentences of a corpus
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
    table = _with_sentence_column(read_table(path), path, text_column)
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
    """Read graded pairs: columns `sentence1`, `sentence2`, `grade` (or `score`, or `label`), and any others.

    Grades may be on any scale, such as 0 to 5, 0 to 1, or 0 and 1: `relatedness` is what they are from 0 to 1, and
    `grade` the nearest of the five grades 0 to 4. A `kind` that is none of `KINDS`, or no column `kind`, is `balanced`.
    Without a column `split`, or where it leaves nothing to choose a threshold on or to judge by, half of the pairs are
    `train`, a quarter `validation` and a quarter `test`, drawn with the seed; pairs with the same first sentence stay
    together. Warnings say what was changed, and count the pairs whose grade is empty, which are left out.

    Raises `ValueError` naming the row of a grade that is no number, of a pair that has two grades, or of an empty
    sentence, and when all grades are equal.
    """
    table = read_table(path)
    graded = next((name for name in ("grade", "score", "label") if name in table), "grade")
    table = _require_columns(table, path, ("sentence1", "sentence2", graded)).rename(columns={graded: "grade"})
    for column in ("sentence1", "sentence2"):
        check_sentences(table[column].tolist(), f"{path}, {column}")
    empty = table["grade"].isna() | table["grade"].astype(str).str.strip().str.casefold().isin(NO_GRADE)
    if empty.all():
        raise ValueError(f"{path}: no pair is graded yet: fill the column {graded}")
    if empty.any():
        warnings.warn(
            f"{path}: {(~empty).sum():,} pairs are graded, {empty.sum():,} are not and were left out", stacklevel=2
        )
    grades = _grades(table, empty, path)
    table, grades = table[~empty].reset_index(drop=True), grades[~empty].reset_index(drop=True)
    table["grade"], table["relatedness"] = _on_our_scale(grades, path)
    strange = ~table["kind"].isin(KINDS) if "kind" in table else pd.Series(True, table.index)
    if "kind" in table and strange.any():
        warnings.warn(f"{path}: {strange.sum():,} pairs of other kinds count as balanced", stacklevel=2)
    table["kind"] = table.get("kind", strange).where(~strange, "balanced")
    sides = pd.Series(
        [frozenset((one.strip(), two.strip())) for one, two in zip(table["sentence1"], table["sentence2"])]
    )
    if (repeats := sides.duplicated()).any():
        warnings.warn(f"{path}: {repeats.sum():,} pairs are there twice and count once", stacklevel=2)
        table = table[~repeats].reset_index(drop=True)
    if "split" in table:
        table["split"] = _split_names(table["split"], path)
    if "split" not in table or not {"validation", "test"} <= set(table["split"]):
        if "split" in table:
            warnings.warn(f"{path}: the splits were drawn anew, since validation and test are needed", stacklevel=2)
        table["split"] = _draw_splits(table["sentence1"], seed)
    return table


def _require_columns(table: pd.DataFrame, path: Path | str, names: Sequence[str]) -> pd.DataFrame:
    """The table with these columns under these names: capitals and blanks around them do not matter."""
    known = {column.strip().casefold(): column for column in table}
    if missing := [name for name in names if name not in table and name not in known]:
        raise ValueError(f"{path} has no column {missing[0]!r}, only {', '.join(table)}: rename one")
    return table.rename(columns={known[name]: name for name in names if name not in table})


def _split_names(splits: pd.Series, path: Path | str) -> pd.Series:
    """train, validation or test. Raises `ValueError` naming the row of any other word."""
    others = {"training": "train", "dev": "validation", "val": "validation", "valid": "validation", "testing": "test"}
    names = splits.astype(str).str.strip().str.casefold().replace(others)
    if len(wrong := np.flatnonzero(~names.isin(["train", "validation", "test"]))):
        found = splits.iloc[wrong[0]]
        raise ValueError(f"{path}, row {wrong[0] + 1}: the split is {found!r}: expected train, validation or test")
    return names


def load_triplets(path: Path | str) -> list[tuple[str, ...]]:
    """Read training data for supervised SimCSE: the columns `anchor`, `positive` and, if there is one, `negative`; or
    `sentence1` and `sentence2`. Raises `ValueError` naming the row of what is no sentence."""
    table = read_table(path)
    pair = ("sentence1", "sentence2") if "sentence1" in table else ("anchor", "positive")
    table = _require_columns(table, path, pair)
    columns = [table[name].tolist() for name in (*pair, "negative") if name in table]
    for column in columns:
        check_sentences(column, str(path))
    return list(zip(*columns))


def _grades(pairs: pd.DataFrame, empty: pd.Series, path: Path | str) -> pd.Series:
    """The grades as numbers. Raises `ValueError` for what is none, for a pair that has two, and when all are equal."""
    texts = pairs["grade"].astype(str).str.strip().str.casefold().replace({"true": "1", "false": "0"})
    grades = pd.to_numeric(texts.str.replace(",", ".").mask(empty), errors="coerce").astype(float)  # 3,5 is 3.5
    if len(wrong := np.flatnonzero(~np.isfinite(grades) & ~empty)):
        found = pairs["grade"].iloc[wrong[0]]
        raise ValueError(
            f"{path}, row {wrong[0] + 1}: the grade is {found!r}, not a number: write one, or leave it empty"
        )
    if grades.nunique() < 2:
        raise ValueError(f"{path}: {(~empty).sum()} graded pairs, all of one grade: nothing can be learnt of them")
    sides = np.sort(pairs[["sentence1", "sentence2"]].to_numpy(str), axis=1)
    by_pair = grades.groupby([sides[:, 0], sides[:, 1]]).transform("nunique")
    if len(twice := np.flatnonzero(by_pair > 1)):
        other = np.flatnonzero((sides == sides[twice[0]]).all(1) & ~empty)[1]
        raise ValueError(f"{path}, row {twice[0] + 1}: the pair has two grades, here and in row {other + 1}")
    return grades


def _on_our_scale(grades: pd.Series, path: Path | str) -> tuple[pd.Series, pd.Series]:
    """Grades 0 to 4, and the same from 0 to 1. Whole numbers up to 2, 3 or 4 are taken to be on our scale already."""
    low, high = grades.min(), grades.max()
    if grades.isin(ALL_GRADES).all() and high >= 2:
        if low > 0 or high < 4:
            warnings.warn(f"{path}: grades from {low:g} to {high:g} are taken for some of 0 to 4", stacklevel=3)
        return grades.astype(int), grades / 4
    warnings.warn(f"{path}: grades from {low:g} to {high:g}, shown as 0 to 4", stacklevel=3)
    relatedness = (grades - low) / (high - low)
    return (4 * relatedness).round().astype(int), relatedness


def _draw_splits(first_sentences: pd.Series, seed: int) -> np.ndarray:
    names, number = np.array(["train", "validation", "test"]), pd.factorize(first_sentences)[0]
    drawn = np.random.default_rng(seed).choice(names, number.max() + 1, p=[0.5, 0.25, 0.25])[number]
    if set(drawn) != set(names):  # few first sentences: pair by pair
        drawn = np.random.default_rng(seed).permutation(np.resize(names[[0, 1, 0, 2]], len(number)))
    return drawn


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
    known = {str(column).casefold(): column for column in table}
    if text_column not in table and text_column.strip().casefold() in known:
        text_column = known[text_column.strip().casefold()]
    if text_column == "sentence" not in table and ("text" in texts or len(texts) == 1):
        text_column = "text" if "text" in texts else texts[0]
        if text_column != "text":
            warnings.warn(f"{path} has no column 'sentence': {text_column!r} holds the sentences", stacklevel=3)
    if text_column not in table:
        raise ValueError(f"{path} has no column {text_column!r}, only {', '.join(map(str, table))}: set text_column")
    if text_column == "sentence":
        return table
    return table.drop(columns="sentence", errors="ignore").rename(columns={text_column: "sentence"})


def check_sentences(sentences: Sequence, source: str = "the corpus", at_least: int = 2) -> None:
    """Raise `ValueError` unless there are as many sentences or more and each is a text that is not blank."""
    if isinstance(sentences, str):
        raise ValueError(f"{source}: give a list of sentences, not one text ({sentences[:40]!r})")
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
    """A report of what was read: sizes, repeats, lengths, what will be cut, three sentences, scripts. `token_counts`
    are those of `Encoder.count_tokens`."""
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
        "first": sentences[0],
        "last": sentences[-1],
        "longest": max(sentences, key=len)[:500],
        "letters": ", ".join(f"{script} {n / scripts.total():.1%}" for script, n in scripts.most_common(5)),
    }


def split_sentences(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Add a column `split` (70 % train, 10 % validation, 20 % test, drawn with the seed) unless there is one.

    Raises `ValueError` when there is nothing to train on or nothing to test on.
    """
    if "split" in table:
        table = table.assign(split=_split_names(table["split"], "the corpus"))
        if not {"train", "test"} <= set(table["split"]):
            found = ", ".join(sorted(set(table["split"])))
            raise ValueError(f"column split holds {found}: train and test are needed")
        return table
    if len(table) < FEWEST:
        raise ValueError(
            f"{len(table)} sentences are too few to train on some and test on others: {FEWEST} are the least, and with "
            "fewer than a thousand there is little to learn"
        )
    _, number = np.unique(table["sentence"].to_numpy(str), return_inverse=True)  # a repeated one goes to one split
    rank = (np.random.default_rng(seed).permutation(number.max() + 1) / (number.max() + 1))[number]
    return table.assign(split=np.select([rank < 0.7, rank < 0.8], ["train", "validation"], "test"))


def draw_sentences(table: pd.DataFrame, split: str, count: int, seed: int = 0) -> pd.DataFrame:
    """At most `count` rows of the split in random order, no sentence twice."""
    rows = table[table["split"] == split].drop_duplicates("sentence").sort_values("sentence")
    return rows.iloc[np.random.default_rng(seed).permutation(len(rows))[:count]].reset_index(drop=True)


def draw_pairs(
    pairs: pd.DataFrame, train: int, judging: int, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Of a table of `load_pairs`, in random order: at most `train` pairs to learn from; balanced ones to choose
    thresholds on, and pairs of every kind to judge by, at most `judging` of each kind and grade."""
    shuffled = pairs.sample(frac=1, random_state=seed)
    few = shuffled.groupby(["split", "kind", "grade"]).head(judging)
    validation = few[(few["split"] == "validation") & (few["kind"] == "balanced")]
    drawn = shuffled[shuffled["split"] == "train"][:train], validation, few[few["split"] == "test"]
    return tuple(table.reset_index(drop=True) for table in drawn)
