"""A user's own sentences: read them, check them, split them, and write results without leaving half a file behind."""

import hashlib
import json
import os
import random
import re
import tempfile
import threading
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import cycle
from pathlib import Path

import numpy as np
from datasets import Dataset, disable_progress_bars, load_dataset
from datasets.exceptions import DatasetGenerationError
from datasketch import MinHash, MinHashLSH
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

disable_progress_bars()  # of datasets' own steps, which take a second here
PROBE_SECONDS = 8  # for the hub to answer; its own retries take 23 s where refused, minutes where nothing answers
_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*(?:\.\d+)?")  # a hyphen joins, and a point before digits
_FIRST = re.compile(r'(?:^|[.!?:"“])\s*$')  # what stands before a word that has its capital from its place
READERS = {".csv": "csv", ".tsv": "csv", ".txt": "text", ".jsonl": "json", ".parquet": "parquet"}


def load_sentences(path: Path | str, text_column: str = "sentence", duplicates_from: float | None = None) -> Dataset:
    """Read a corpus, a file, a folder of files of one kind or the train split of a hub dataset ("owner/name"), into a
    `Dataset` with a `sentence` column; the other columns are kept. A `.txt` file has one sentence a line; the only text
    column of another is found under any name.

    Blank rows are left out; so are `near_duplicates` of the similarity `duplicates_from`, if given: in training each is
    a false negative of its twin, and a test sentence whose twin was trained on is not held out. Warnings count them.
    Columns `sport` and `event` name groups, and become text.

    Raises `FileNotFoundError` or `ValueError` saying what was wrong with which line or row, `ConnectionError` when the
    hub does not answer; no file is ever written to.
    """
    dataset = _read(path)
    texts = [
        name for name, kind in dataset.features.items() if getattr(kind, "dtype", "") in ("string", "large_string")
    ]
    column = texts[0] if text_column not in dataset.column_names and len(texts) == 1 else text_column
    if column not in (text_column, "text"):
        warnings.warn(f"{path} has no column {text_column!r}: the sentences are those of {column!r}", stacklevel=2)
    if column not in dataset.column_names:
        raise ValueError(f"{path} has no column {column!r}, only {', '.join(dataset.column_names)}: set text_column")
    if column != "sentence":  # and another column of that name is not wanted
        dataset = dataset.select_columns([name for name in dataset.column_names if name != "sentence"])
        dataset = dataset.rename_column(column, "sentence")
    sentences = dataset["sentence"][:]
    check_sentences([s if not isinstance(s, str) or s.strip() else "blank" for s in sentences], str(path), at_least=0)
    kept = [row for row, sentence in enumerate(sentences) if sentence.strip()]
    if blank := len(sentences) - len(kept):
        warnings.warn(f"{path}: {blank:,} blank rows of {len(sentences):,} were left out", stacklevel=2)
    if duplicates_from is not None:
        repeated = near_duplicates([sentences[row] for row in kept], duplicates_from)
        if repeated:
            warnings.warn(
                f"{path}: {len(repeated):,} sentences of {len(kept):,} repeat an earlier one and were left out, "
                f"such as {sentences[kept[repeated[0]]][:80]!r} (duplicates_from = {duplicates_from}; None keeps them)",
                stacklevel=2,
            )
        kept = np.delete(kept, repeated)
    check_sentences([sentences[row] for row in kept], str(path))  # enough of them
    dataset = dataset if len(kept) == len(dataset) else dataset.select(kept)
    for column in [name for name in ("sport", "event") if name in dataset.column_names]:
        groups = ["" if group is None else str(group) for group in dataset[column]]
        if groups != dataset[column][:]:
            dataset = dataset.remove_columns(column).add_column(column, groups)
    return dataset


def load_pairs(path: Path | str) -> Dataset:
    """Read graded pairs, columns `sentence1`, `sentence2`, `grade` and any others, as `graded_pairs` makes them."""
    dataset = _read(path)
    if missing := {"sentence1", "sentence2", "grade"} - set(dataset.column_names):
        raise ValueError(f"{path} has no column {sorted(missing)[0]!r}, only {', '.join(dataset.column_names)}")
    for column in ("sentence1", "sentence2"):
        check_sentences(dataset[column], f"{path}, {column}")
    return dataset


def _read(path: Path | str) -> Dataset:
    given, path = str(path), Path(path)
    if not path.exists():
        if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", given) and path.suffix.lower() not in READERS:
            return _hub_dataset(given)
        raise FileNotFoundError(f"no file {path} (the sport corpus is made by generate_sport_sentences.ipynb)")
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in READERS) if path.is_dir() else [path]
    kinds = sorted({file.suffix.lower() for file in files})
    if len(kinds) != 1 or kinds[0] not in READERS:
        there = f"holds {' and '.join(kinds) or 'no file'}" if path.is_dir() else f"is a {path.suffix or 'bare'} file"
        raise ValueError(f"{path} {there}: one of the formats that can be read is needed, {', '.join(READERS)}")
    (suffix,) = kinds
    for file in files:
        if suffix != ".parquet":
            _check_bytes(file)
    options = {}
    if suffix in (".csv", ".tsv"):  # the sentence "NA" is a sentence
        options = {"keep_default_na": False, "sep": "\t" if suffix == ".tsv" else ","}
    elif suffix == ".txt":
        options = {"encoding": "utf-8-sig"}  # without a byte-order mark
    with tempfile.TemporaryDirectory() as cache:  # no stale copy of an edited file, nothing left behind
        try:
            return load_dataset(
                READERS[suffix],
                data_files=[str(file) for file in files],
                split="train",
                cache_dir=cache,
                keep_in_memory=True,
                **options,
            )
        except (DatasetGenerationError, ValueError) as error:  # ValueError: not one row
            raise ValueError(f"no rows could be read from {path}: {error.__cause__ or error}") from None


def _hub_dataset(name: str) -> Dataset:
    _, error = ask_hub(lambda hub: hub.dataset_info(name, timeout=PROBE_SECONDS))
    if isinstance(error, HfHubHTTPError):
        raise FileNotFoundError(f"{name} is no file here, and no dataset of the hub: {str(error).splitlines()[0]}")
    if error and not isinstance(error, OfflineModeIsEnabled):
        raise ConnectionError(
            f"{name} is no file here, and the hub, which may have it, did not answer ({error}). With HF_HUB_OFFLINE=1 "
            "set, what was downloaded before is used"
        )
    try:
        return load_dataset(name, split="train")
    except ValueError as error:  # no such split, or several configurations
        reason = str(error).splitlines()[0]
        raise ValueError(f"{name}: {reason} Download what you want of it, and name the file") from None


def ask_hub(question: Callable[[HfApi], object]) -> tuple[object, Exception | None]:
    """The hub's answer and no error, or no answer and the error, which comes within `PROBE_SECONDS`."""
    outcome: list = [None, TimeoutError(f"{PROBE_SECONDS} s of silence")]

    def ask() -> None:
        try:
            outcome[:] = question(HfApi()), None
        except Exception as error:  # handed to the caller's thread
            outcome[:] = None, error

    thread = threading.Thread(target=ask, daemon=True)  # a thread, for looking a name up knows no timeout
    thread.start()
    thread.join(PROBE_SECONDS)
    return outcome[0], outcome[1]


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
    for row, sentence in enumerate(sentences):
        if not isinstance(sentence, str):
            raise ValueError(f"{source}, row {row + 1}: {sentence!r} is no text but {type(sentence).__name__}")
        if not sentence.strip():
            raise ValueError(f"{source}, row {row + 1}: the sentence is empty")


def near_duplicates(sentences: Sequence[str], similarity: float = 0.9) -> list[int]:
    """Rows that repeat an earlier one, which is not in the list, but for a few letters: the digits of both are the
    same, and of the runs of five characters that either has, both have the share `similarity` (Jaccard), in [0.8, 1].
    Case and spaces do not count. At 0.9 about one letter in a hundred may be another.

    Candidates are found by MinHash (Broder 1997), all but 1 in 10,000 at a similarity of 0.9 and 1 in 20 at 0.8; then
    their runs are compared.
    """
    if not 0.8 <= similarity <= 1:
        raise ValueError(f"similarity is {similarity}: from 0.8 on two sentences are near-duplicates, 1 is the most")

    def runs(sentence: str, length: int = 5) -> set[str]:
        text = " ".join(sentence.casefold().split())
        digits = "".join(filter(str.isdigit, text))  # in every run: other digits are another fact
        return {f"{digits} {text[start : start + length]}" for start in range(max(1, len(text) - length + 1))}

    index, found = MinHashLSH(num_perm=128, params=(16, 8)), []
    signatures = MinHash.generator(([run.encode() for run in runs(sentence)] for sentence in sentences), num_perm=128)
    for row, (sentence, signature) in enumerate(zip(sentences, signatures)):
        ours = runs(sentence)
        others = (runs(sentences[earlier]) for earlier in index.query(signature))
        if any(len(ours & theirs) >= similarity * len(ours | theirs) for theirs in others):
            found.append(row)
        else:
            index.insert(row, signature)
    return found


def describe(sentences: Sequence[str], lengths: Sequence[int], max_length: int) -> dict[str, str]:
    """What there is to know of a corpus before anything is done with it. `lengths` are in tokens, as by
    `Encoder.lengths`."""
    words = [len(sentence.split()) for sentence in sentences]
    letters = Counter("".join(sentences))
    scripts = Counter()
    for letter, count in letters.items():
        if letter.isalpha():
            scripts[unicodedata.name(letter, "UNKNOWN").split()[0].lower()] += count
    return {
        "sentences": f"{len(sentences):,}",
        "repeats": f"{len(sentences) - len(set(sentences)):,}",
        "repeats but for a few letters": f"{len(near_duplicates(sentences)):,}",
        "words": f"{np.median(words):.0f} in the median, {min(words)} to {max(words)}",
        "tokens": f"{np.median(lengths):.0f} in the median, {min(lengths)} to {max(lengths)}",
        f"longer than {max_length} tokens": f"{sum(length > max_length for length in lengths):,}",
        "letters": ", ".join(f"{script} {n / scripts.total():.1%}" for script, n in scripts.most_common(5)),
    }


def split_sentences(dataset: Dataset, seed: int = 0) -> Dataset:
    """Add a `split` column (70 % train, 10 % validation, 20 % test, drawn with the seed) unless there is one.

    Raises `ValueError` when there is nothing to train on or nothing to test on.
    """
    if "split" in dataset.column_names:
        there = set(map(str, dataset["split"]))
        if not {"train", "test"} <= there:
            raise ValueError(f"column split holds {', '.join(sorted(there))}: train and test are needed")
        return dataset
    if len(dataset) < 5:
        raise ValueError(f"{len(dataset)} sentences are too few to train on some and test on others")
    _, which = np.unique(np.array(dataset["sentence"]), return_inverse=True)  # a repeated one goes to one split
    ranks = (np.random.default_rng(seed).permutation(which.max() + 1) / (which.max() + 1))[which]
    return dataset.add_column("split", np.select([ranks < 0.7, ranks < 0.8], ["train", "validation"], "test").tolist())


def draw_sentences(corpus: Dataset, count: int, rng: np.random.Generator, split: str = "train") -> list[str]:
    """At most `count` sentences of the split in random order, none twice."""
    sentences = np.array(corpus["sentence"])[np.array(corpus["split"]) == split]
    return rng.permutation(np.unique(sentences))[:count].tolist()


def names_and_numbers(sentences: Sequence[str]) -> list[list[str]]:
    """The names and numbers in each sentence, in order, found from the raw text alone.

    A name is a word written with a capital inside a sentence and nowhere without; a number is written in digits. So
    number words are none, and a language that gives every noun a capital has too many.
    """
    words = [list(_WORD.finditer(sentence)) for sentence in sentences]
    lower = {word[0].lower() for found in words for word in found if not word[0][0].isupper()}
    names = {
        word[0]
        for sentence, found in zip(sentences, words)
        for word in found
        if word[0][0].isupper() and word[0].lower() not in lower and not _FIRST.search(sentence[: word.start()])
    }
    return [[word[0] for word in found if word[0] in names or word[0][0].isdigit()] for found in words]


def replace_words(sentence: str, new: dict[str, str]) -> str:
    """The sentence with each word that is in `new` replaced by what stands there."""
    return _WORD.sub(lambda word: new.get(word[0], word[0]), sentence)


def put_names(sentence: str, ours: list[str], theirs: list[str]) -> str:
    """The sentence with its names and numbers (`ours`) replaced, in order and names by names, by those of another
    (`theirs`), a repeated one by the same."""
    numbers, names = (cycle([w for w in theirs if w[0].isdigit() == digits]) for digits in (True, False))
    return replace_words(
        sentence, {word: next(numbers if word[0].isdigit() else names, word) for word in dict.fromkeys(ours)}
    )


def swap_names(sentences: Sequence[str], found: list[list[str]], seed: int) -> list[str]:
    """A copy of each sentence whose names and numbers (`found`, as by `names_and_numbers`) are replaced by those of one
    drawn at random: what happens stays, to whom and how often does not."""
    donors = random.Random(seed).choices([words for words in found if words] or [[]], k=len(sentences))
    return [put_names(*of) for of in zip(sentences, found, donors)]


def output_folder(path: Path | str) -> Path:
    """Make the folder and prove that it can be written to, before any work is done; raises `PermissionError`."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise PermissionError(f"the output folder {path} cannot be written to: {error.strerror}") from None
    return path


def fingerprint(*parts: object) -> str:
    """A short name for what embeddings or weights depend on: parts that JSON can write, the code, the libraries."""
    later = ("plots.py", "scorecard.py", "sharing.py")  # come after both
    code = [file.read_text() for file in sorted(Path(__file__).parent.glob("*.py")) if file.name not in later]
    return hashlib.sha256(json.dumps([*parts, code, library_versions()]).encode()).hexdigest()[:16]


def library_versions() -> dict[str, str]:
    """The versions that stand beside every result."""
    return {package: version(package) for package in ("torch", "transformers", "numpy")}


def write_atomically(path: Path | str, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path beside `path`, then move it there: the old file or the new, never half."""
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
