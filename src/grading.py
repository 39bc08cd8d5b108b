"""Which pairs to grade: propose them, write a sheet for a person, and read it back with `pairs.load_pairs`."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import zscore
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neighbors import NearestNeighbors

from src.entities import remove_entities
from src.records import output_folder, write_atomically
from src.similarity import Embeddings, check_rows

RANKS = tuple(2**k for k in range(12))  # how near the neighbours are that sentences are paired with: 1 is the nearest
SAMPLED = 4_000  # sentences, of a larger corpus
GUIDE = """How to grade

Give each pair one whole number from 0 to 4. Judge what the two sentences say, not how they say it.

4  the same: both state the same facts, in whatever words
3  nearly: all facts agree but one (another name, number, day, result)
2  the same kind of thing happened, but to others or elsewhere: several facts differ
1  the same field (the same sport, product, department), another kind of thing or another outcome (saved, scored)
0  nothing to do with each other

Leave a pair empty when you cannot decide; it is not used. Any order will do, and half a sheet is useful.
Change nothing but the column `grade`. Another scale (0/1, 1 to 5) will do as well, if you keep to it throughout.
"""


def propose_pairs(sentences: Sequence[str], embeddings: Embeddings, count: int, seed: int = 0) -> pd.DataFrame:
    """`count` pairs that are worth grading: columns `pair` (a number), `sentence1`, `sentence2`, and an empty `grade`.

    They are spread over the ranks of neighbours, from the nearest to random ones, since random pairs alone are hardly
    ever related. For each rank, those pairs come first on which two cheap views disagree: the cosine of the embeddings,
    and that of the words that are no names or numbers. No sentence occurs twice. `embeddings` are the sentences' rows.

    Raises `ValueError` for fewer sentences than the pairs need.
    """
    check_rows(embeddings, unit=True)
    if len(set(sentences)) < 2 * count:
        raise ValueError(f"{count} pairs need {2 * count} different sentences, there are only {len(set(sentences))}")
    rng = np.random.default_rng(seed)
    _, first_uses = np.unique(np.asarray(sentences, dtype=str), return_index=True)
    rows = rng.permutation(first_uses)[: max(SAMPLED, 2 * count)]
    texts, embeddings = [sentences[row] for row in rows], embeddings[rows]
    candidates = _neighbours(embeddings, rng)  # one column a rank, and a random one
    surprise = _disagreement(texts, embeddings, candidates)
    queues = [iter(np.argsort(-surprise[:, column])) for column in range(candidates.shape[1])]
    used, chosen = set(), []
    for column in cycle(range(candidates.shape[1])):
        pairs = ((int(row), int(candidates[row, column])) for row in queues[column])
        pair = next((pair for pair in pairs if used.isdisjoint(pair)), None)
        if pair is None:  # all that is left is used: any two others
            left = [row for row in range(len(texts)) if row not in used]
            pair = tuple(rng.choice(left, 2, replace=False).tolist())
        used |= set(pair)
        chosen.append(pair)
        if len(chosen) == count:
            break
    order = rng.permutation(count)  # so that the sheet does not begin with the nearest
    one, two = np.array(chosen)[order].T
    columns = {"sentence1": [texts[row] for row in one], "sentence2": [texts[row] for row in two]}
    return pd.DataFrame({"pair": np.arange(1, count + 1), **columns, "grade": ""})


def write_sheet(pairs: pd.DataFrame, path: Path | str) -> None:
    """Write pairs to grade as a CSV, each sentence in one line, and beside it a guide (.guide.txt)."""
    path = check_sheet(path)
    lines = {column: pairs[column].str.split().str.join(" ") for column in ("sentence1", "sentence2")}
    write_atomically(path.with_suffix(".guide.txt"), lambda guide: guide.write_text(GUIDE, encoding="utf-8"))
    write_atomically(path, lambda sheet: pairs.assign(**lines).to_csv(sheet, index=False))


def check_sheet(path: Path | str) -> Path:
    """Where a sheet may be written. One that is there is never overwritten: raises `FileExistsError`."""
    path = Path(path).expanduser()
    if path.exists():
        raise FileExistsError(f"{path} exists and may hold grades: move it, or name another file")
    output_folder(path.parent)
    return path


def _neighbours(embeddings: Embeddings, rng: np.random.Generator) -> Int[np.ndarray, "n ranks"]:
    """For each row, its neighbour of each of `RANKS`, give or take a third, and a random other row."""
    n = len(embeddings)
    ranks = [rank for rank in RANKS if rank == 1 or rank < n / 2]
    search = NearestNeighbors(n_neighbors=min(max(ranks) * 4 // 3 + 1, n - 1)).fit(embeddings)
    nearest = search.kneighbors(return_distance=False)
    columns = []
    for rank in ranks:
        about = (rank * rng.uniform(2 / 3, 4 / 3, n)).round().astype(int).clip(1, nearest.shape[1])
        columns.append(nearest[np.arange(n), about - 1])
    return np.stack([*columns, (np.arange(n) + rng.integers(1, n, n)) % n], axis=1)


def _disagreement(
    texts: Sequence[str], embeddings: Embeddings, candidates: Int[np.ndarray, "n ranks"]
) -> Float[np.ndarray, "n ranks"]:
    """How far apart the two views of each pair are, in standard deviations of each view at that rank."""
    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\S+")  # never without a word
    words = vectorizer.fit_transform(remove_entities(texts))
    cosines = np.stack([(embeddings * embeddings[column]).sum(1) for column in candidates.T], axis=1)
    overlaps = np.hstack([words.multiply(words[column]).sum(1) for column in candidates.T])
    return np.abs(np.nan_to_num(zscore(cosines)) - np.nan_to_num(zscore(np.asarray(overlaps))))
