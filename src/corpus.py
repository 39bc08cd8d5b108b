"""A user's own sentences: read and check them, remove duplicates, split and draw."""

import unicodedata
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from datasketch import MinHash, MinHashLSH

from src.tables import read_table, split_of, with_columns

FEWEST = 20  # sentences of a corpus


def load_sentences(
    path: Path | str, text_column: str = "sentence", duplicates_from: float | None = None
) -> pd.DataFrame:
    """Read a corpus into a table with a column `sentence`; other columns are kept, `sport`, `event` and `template` as
    text. Where one of these is blank, the sentence itself stands in, so that it forms a group of its own.

    `path` is a file, a folder of files of one kind, or the train split of a hub dataset ("owner/name"). A `.txt` file
    has one sentence a line. Without a column `text_column`, a table's only text column is taken, with a warning.

    Blank rows are left out. With `duplicates_from`, so are `near_duplicates` of that similarity: in training each would
    be a false negative of its twin, and a test sentence whose twin was trained on is not held out. Warnings count them.

    Raises `FileNotFoundError` or `ValueError` naming the line or row and what is wrong with it, `ConnectionError` when
    the hub does not answer. Nothing is ever written to the file.
    """
    table = with_columns(read_table(path), "split", "sport", "event", "template")
    table = _with_sentence_column(table, path, text_column)
    if "split" in table:
        table["split"] = split_names(table["split"], path)
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
    for column in {"sport", "event", "template"} & set(table):
        names = table[column].astype(object).fillna("").astype(str)
        table[column] = names.where(names.str.strip() != "", table["sentence"])
    return table


def _with_sentence_column(table: pd.DataFrame, path: Path | str, text_column: str) -> pd.DataFrame:
    table = with_columns(table, "text", text_column)  # the last wins where both mean one column
    if text_column == "sentence" and "sentence" not in table:
        texts = [name for name in table if pd.api.types.is_string_dtype(table[name])]
        if "text" in table:
            text_column = "text"
        elif len(texts) == 1:
            text_column = texts[0]
            warnings.warn(f"{path} has no column 'sentence': {text_column!r} holds the sentences", stacklevel=3)
    if text_column not in table:
        raise ValueError(f"{path} has no column {text_column!r}, only {', '.join(map(str, table))}: set text_column")
    if text_column == "sentence":
        return table
    return table.drop(columns="sentence", errors="ignore").rename(columns={text_column: "sentence"})


def check_sentences(sentences: Sequence, source: str = "the corpus", at_least: int = 2) -> None:
    """Raise `ValueError` unless there are `at_least` sentences and each is a text that is not blank."""
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
    """Rows that repeat an earlier row up to a few letters; the earlier row is not listed.

    Two sentences are alike when their digits are the same and the Jaccard index of their runs of five characters is
    `similarity` or more, in [0.8, 1]. Case and spaces do not count. At 0.9 about one letter in a hundred may differ.
    MinHash (Broder 1997) finds the candidates; it misses 1 in 10,000 at a similarity of 0.9 and 1 in 20 at 0.8. Then
    their runs are compared.
    """
    if not 0.8 <= similarity <= 1:
        raise ValueError(f"similarity is {similarity}: it must be from 0.8 to 1")

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


def split_names(splits: pd.Series, path: Path | str) -> pd.Series:
    """train, validation or test. Raises `ValueError` naming the row of any other word."""
    names = splits.astype(str).map(split_of)
    if len(wrong := np.flatnonzero(names.isna())):
        found = splits.iloc[wrong[0]]
        raise ValueError(f"{path}, row {wrong[0] + 1}: the split is {found!r}: expected train, validation or test")
    return names


def split_sentences(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Add a column `split` (70 % train, 10 % validation, 20 % test, drawn with the seed) unless there is one.

    Raises `ValueError` when there is nothing to train on or nothing to test on.
    """
    if "split" in table:
        table = table.assign(split=split_names(table["split"], "the corpus"))
        if not {"train", "test"} <= set(table["split"]):
            found = ", ".join(sorted(set(table["split"])))
            raise ValueError(f"column split holds {found}: train and test are needed")
        return table
    if (count := table["sentence"].nunique()) < FEWEST:
        raise ValueError(
            f"{count} sentences are too few to train on some and test on others: {FEWEST} are the least, and with "
            "fewer than a thousand there is little to learn"
        )
    _, number = np.unique(table["sentence"].to_numpy(str), return_inverse=True)  # a repeated one goes to one split
    rank = (np.random.default_rng(seed).permutation(number.max() + 1) / (number.max() + 1))[number]
    return table.assign(split=np.select([rank < 0.7, rank < 0.8], ["train", "validation"], "test"))


def draw_sentences(table: pd.DataFrame, split: str, count: int, seed: int = 0) -> pd.DataFrame:
    """At most `count` rows of the split in random order, no sentence twice."""
    rows = table[table["split"] == split].drop_duplicates("sentence").sort_values("sentence")
    return rows.iloc[np.random.default_rng(seed).permutation(len(rows))[:count]].reset_index(drop=True)
