"""Pairs of sentences that somebody graded: read and check them, and draw some to learn from and some to judge by."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from src.corpus import check_sentences, split_names
from src.grammar import GRAMMAR_FOLDER
from src.quality import ALL_GRADES
from src.sentences import KINDS, graded_pairs
from src.tables import read_table, with_columns

GRADE_COLUMNS = ("grade", "score", "label")  # the first that is there
NO_GRADE = ("", "na", "n/a", "nan", "none", "null", "-")  # what people write where they give no grade


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
    table = with_columns(read_table(path), "sentence1", "sentence2", *GRADE_COLUMNS, "kind", "split")
    graded = next((name for name in GRADE_COLUMNS if name in table), "grade")
    _require_columns(table, path, ("sentence1", "sentence2", graded))
    table = table.rename(columns={graded: "grade"})
    for column in ("sentence1", "sentence2"):
        check_sentences(table[column].tolist(), f"{path}, {column}")
        table[column] = table[column].str.strip()
    if "split" in table:
        table["split"] = split_names(table["split"], path)
    table = _without_repeats(_with_grades(table, path), path)
    return table.assign(kind=_kinds(table, path), split=_splits(table, path, seed))


def draw_pairs(
    pairs: pd.DataFrame, train: int, judging: int, seed: int = 0, judged: str = "test"
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Of a table of `load_pairs`, in random order: at most `train` pairs to learn from; balanced ones to choose
    thresholds on, and pairs of every kind of the split `judged` to judge by, at most `judging` of each kind and grade.
    """
    shuffled = pairs.sample(frac=1, random_state=seed)
    few = shuffled.groupby(["split", "kind", "grade"]).head(judging)
    validation = few[(few["split"] == "validation") & (few["kind"] == "balanced")]
    drawn = shuffled[shuffled["split"] == "train"][:train], validation, few[few["split"] == judged]
    return tuple(table.reset_index(drop=True) for table in drawn)


def load_triplets(path: Path | str) -> list[tuple[str, ...]]:
    """Read training data for supervised SimCSE: the columns `anchor`, `positive` and, if there is one, `negative`; or
    `sentence1` and `sentence2`. Raises `ValueError` naming the row of what is no sentence, and for grades: the second
    sentence of each row is taken to mean the same as the first."""
    names = ("sentence1", "sentence2", "anchor", "positive", "negative")
    table = with_columns(read_table(path), *names, *GRADE_COLUMNS)
    pair = names[:2] if "sentence1" in table else names[2:4]
    _require_columns(table, path, pair)
    for name in table:
        if name in GRADE_COLUMNS or ("negative" in name.casefold() and name != "negative"):
            raise ValueError(
                f"{path}: supervised_simcse has no use for the column {name!r}. It takes each pair to mean the same, "
                "and one `negative` to differ: leave only such rows, and take the column away"
            )
    columns = [table[name].tolist() for name in (*pair, "negative") if name in table]
    for column in columns:
        check_sentences(column, str(path))
    return list(zip(*columns))


def everyday_pairs(seed: int = 0) -> pd.DataFrame:
    """400 graded pairs that are not about sport, of the everyday topics in data/control."""
    pairs = graded_pairs("test", 80, seed, GRAMMAR_FOLDER.parent / "control")  # asked for one kind, it draws others
    return pairs[pairs["kind"] == "balanced"].reset_index(drop=True)


def _require_columns(table: pd.DataFrame, path: Path | str, names: Sequence[str]) -> None:
    if missing := [name for name in names if name not in table]:
        raise ValueError(f"{path} has no column {missing[0]!r}, only {', '.join(map(str, table))}: rename one")


def _with_grades(pairs: pd.DataFrame, path: Path | str) -> pd.DataFrame:
    """The pairs that have a grade, with `grade` and `relatedness`."""
    empty = pairs["grade"].isna() | pairs["grade"].astype(str).str.strip().str.casefold().isin(NO_GRADE)
    if empty.all():
        raise ValueError(f"{path}: no pair is graded yet: fill the column of grades")
    if empty.any():
        _warn(f"{path}: {(~empty).sum():,} pairs are graded, {empty.sum():,} are not and were left out")
    grade, relatedness = _on_our_scale(_grades(pairs, empty, path)[~empty], path)
    return pairs[~empty].assign(grade=grade, relatedness=relatedness).reset_index(drop=True)


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
    if len(twice := np.flatnonzero((by_pair > 1) & ~empty)):
        same = (sides == sides[twice[0]]).all(1) & ~empty
        other = np.flatnonzero(same & (grades != grades.iloc[twice[0]]))[0]
        raise ValueError(f"{path}, row {twice[0] + 1}: the pair has two grades, here and in row {other + 1}")
    return grades


def _on_our_scale(grades: pd.Series, path: Path | str) -> tuple[pd.Series, pd.Series]:
    """Grades 0 to 4, and the same from 0 to 1. Whole numbers up to 2, 3 or 4 are taken to be on our scale already."""
    low, high = grades.min(), grades.max()
    for end, others in ((high, grades[grades < high]), (low, grades[grades > low])):
        if len(grades) - len(others) <= 0.01 * len(grades) and high - low > 2 * np.ptp(others) > 0:
            row = grades.index[grades == end][0] + 1
            raise ValueError(
                f"{path}, row {row}: the grade is {end:g}, all others are from {others.min():g} to {others.max():g}: "
                "mend it, or leave it empty"
            )
    if grades.isin(ALL_GRADES).all() and high >= 2:
        if low > 0 or high < 4:
            _warn(f"{path}: grades from {low:g} to {high:g} are taken for grades on the scale 0 to 4", depth=3)
        return grades.astype(int), grades / 4
    _warn(f"{path}: grades from {low:g} to {high:g}, shown as 0 to 4", depth=3)
    relatedness = (grades - low) / (high - low)
    return (4 * relatedness).round().astype(int), relatedness


def _without_repeats(pairs: pd.DataFrame, path: Path | str) -> pd.DataFrame:
    repeats = pd.Series([frozenset(sides) for sides in zip(pairs["sentence1"], pairs["sentence2"])]).duplicated()
    if repeats.any():
        _warn(f"{path}: {repeats.sum():,} pairs are there twice and count once")
    return pairs[~repeats].reset_index(drop=True)


def _kinds(pairs: pd.DataFrame, path: Path | str) -> pd.Series:
    if "kind" not in pairs:
        return pd.Series("balanced", pairs.index)
    known = pairs["kind"].isin(KINDS)
    if not known.all():
        _warn(f"{path}: {(~known).sum():,} pairs of other kinds count as balanced")
    kinds = pairs["kind"].where(known, "balanced")
    if not (kinds == "balanced").any():
        _warn(f"{path}: no pair is balanced, so all count as balanced")
        kinds[:] = "balanced"
    return kinds


def _splits(pairs: pd.DataFrame, path: Path | str, seed: int) -> pd.Series | np.ndarray:
    """The splits as they are named, or drawn where there are none to choose a threshold on and to judge by."""
    if "split" in pairs:
        if {"validation", "test"} <= set(pairs["split"]):
            return pairs["split"]
        _warn(f"{path}: the splits were drawn anew, since validation and test are needed")
    names, number = np.array(["train", "validation", "test"]), pd.factorize(pairs["sentence1"])[0]
    drawn = np.random.default_rng(seed).choice(names, number.max() + 1, p=[0.5, 0.25, 0.25])[number]
    if set(drawn) != set(names):  # few first sentences: pair by pair
        drawn = np.random.default_rng(seed).permutation(np.resize(names[[0, 1, 0, 2]], len(number)))
    return drawn


def _warn(message: str, depth: int = 2) -> None:
    warnings.warn(message, stacklevel=depth + 2)  # of the caller of `load_pairs`, `depth` calls above
