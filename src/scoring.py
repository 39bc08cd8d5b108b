"""Measure an encoder on a corpus and on graded pairs, with bootstrap intervals: what a scorecard holds."""

import contextlib
import hashlib
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import repeat
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from src import quality, similarity
from src.bootstrap import REPLICATES, clusters_of, multiplicities, resampled_distributions, resampled_rows
from src.quality import ALL_GRADES, FACTS, RELATED_FROM, TOPIC, Cosines, Grades
from src.records import library_versions
from src.scorecard import Scorecard
from src.sentences import KINDS
from src.similarity import PairwiseDistribution, cosines_of_pairs
from src.transforms import Encode

SUBSAMPLE = 2_000  # sentences that the intervals of range and geometry are made of
FEWEST_PAIRS = 10  # that a measure is known from


def _groups(kind: str, grades: Iterable[int]) -> list[int]:
    """A code for each of these grades of this kind."""
    return [len(ALL_GRADES) * KINDS.index(kind) + grade for grade in grades]


# Measures of graded pairs: the grades of each kind that it needs, and its function of the cosines and grades of these.
PAIR_MEASURES = {
    **{
        prefix + name: (_groups(kind, among), quality.order)
        for prefix, kind in (("", "balanced"), ("adversarial_", "adversarial"))
        for name, among in (("topic_order", TOPIC), ("fact_order", FACTS), ("order", ALL_GRADES))
    },
    **{f"rung_auc[{k}]": (_groups("balanced", (k, k - 1)), partial(quality.rung_auc, k=k)) for k in (1, 2, 3, 4)},
    "related_auc": (
        _groups("balanced", ALL_GRADES),
        lambda c, g: quality.auc(c[g >= RELATED_FROM], c[g < RELATED_FROM]),
    ),
    "name_trap_auc": (_groups("name trap", (0, 2)), lambda c, g: quality.auc(c[g == 2], c[g == 0])),
    "wording_trap_auc": (
        _groups("balanced", (4,)) + _groups("wording trap", (3,)), partial(quality.rung_auc, k=4),
    ),
    "alignment": (_groups("balanced", (4,)), lambda c, g: quality.alignment(c)),
}  # fmt: skip


def score(
    name: str, encode: Encode, corpus: pd.DataFrame, pairs: pd.DataFrame | None = None,
    thresholds_from: pd.DataFrame | None = None, everyday: pd.DataFrame | None = None,
    replicates: int = REPLICATES, seed: int = 0,
) -> Scorecard:  # fmt: skip
    """All of `MEASURES` that the data allow, with 95 % bootstrap intervals.

    `corpus` has a column `sentence`; with `sport` (and `event`) there is `width_within`, in which pairs of one
    `template`, where that is known, do not count. `pairs` is a table of `load_pairs`; without it, there are only the
    measures that need no grades. `thresholds_from` are other pairs: recalls are at thresholds chosen on them.
    `everyday` are graded pairs of other topics, on any scale.

    Whole events are resampled, or single sentences where a table names no events; never pairs, because pairs share
    sentences. The replicates of the range come from a fixed subsample of 2,000 sentences. An event that is drawn twice
    is paired with itself too often; to remove that bias the replicates are shifted, so that their mean is the value on
    all sentences.
    """
    sentences = corpus["sentence"].tolist()
    embeddings = encode(sentences)
    single = np.arange(len(corpus))  # a missing column: each row is its own sport, and its own wording
    known = [corpus[column] if column in corpus else single for column in ("sport", "template")]
    sports, wordings = (pd.factorize(names)[0] for names in known)
    distribution = similarity.pairwise_distribution(embeddings)
    values = _range_values(distribution, similarity.within_groups(embeddings, sports, wordings))

    rows = np.random.default_rng(seed).permutation(len(sentences))[:SUBSAMPLE]
    times = multiplicities(clusters_of(corpus.iloc[rows]), replicates, seed)
    drawn = _resampled_range_values(embeddings[rows], sports[rows], wordings[rows], times)
    drawn += pd.Series(values) - drawn.mean()  # takes the bias away

    values["effective_rank"] = quality.effective_rank(embeddings)
    if everyday is not None:
        values["everyday_order"], drawn["everyday_order"] = _everyday_order(encode, everyday, replicates, seed)
    settings = {"replicates": replicates, "seed": seed, "versions": library_versions(), "corpus": _checksum(sentences)}
    if pairs is None:
        return Scorecard(name, values, drawn, settings, distribution)
    others = None if thresholds_from is None else (cosines_of_pairs(encode, thresholds_from), thresholds_from)
    card = score_pairs(name, cosines_of_pairs(encode, pairs), pairs, others, replicates, seed)
    values, drawn = values | card.values, pd.concat([drawn, card.replicates], axis=1)
    return Scorecard(name, values, drawn, settings | card.settings, distribution, card.cosines)


def score_pairs(
    name: str, cosines: Cosines, pairs: pd.DataFrame,
    thresholds_from: tuple[Float[np.ndarray, " others"], pd.DataFrame] | None = None,
    replicates: int = REPLICATES, seed: int = 0,
) -> Scorecard:  # fmt: skip
    """The measures that need nothing but the similarity of each graded pair: a word-overlap control has them too.

    Pairs are resampled by the event of their first sentence, or by that sentence where no event is known.
    `thresholds_from` are the cosines and the table of other pairs, resampled alike.
    """
    graded, others = _graded(cosines, pairs), thresholds_from and _graded(*thresholds_from)
    values = _pair_values(graded, others)
    of_others = others.resamples(replicates, seed + 1) if others else repeat(None)
    drawn = [_pair_values(*samples) for samples in zip(graded.resamples(replicates, seed), of_others)]
    tables = [pairs, thresholds_from[1]] if thresholds_from else [pairs]
    columns = ("sentence1", "sentence2", "grade", "kind")
    judged_by = [str(value) for table in tables for column in columns for value in table[column]]
    settings = {"replicates": replicates, "seed": seed, "pairs": _checksum(judged_by)}
    drawn = pd.DataFrame(drawn, columns=list(values), dtype=float)
    return Scorecard(name, values, drawn, settings, cosines=graded.balanced().cosines)


def score_word_overlap(
    train: Sequence[str], pairs: pd.DataFrame, thresholds_from: pd.DataFrame | None = None
) -> dict[str, float]:
    """The control of every order and decision: the best of the three of `quality.word_overlap` in each measure."""

    def similarities(table: pd.DataFrame) -> dict[str, Cosines]:
        return quality.word_overlap(train, table["sentence1"].tolist(), table["sentence2"].tolist())

    chosen_on = None if thresholds_from is None else similarities(thresholds_from)
    controls = []
    for name, cosines in similarities(pairs).items():
        others = chosen_on and (chosen_on[name], thresholds_from)
        controls.append(score_pairs(name, cosines, pairs, others, replicates=1).values)
    measures = dict.fromkeys(m for values in controls for m in values if m != "alignment")  # of which less is better
    return {m: max(values[m] for values in controls if m in values) for m in measures}


def _range_values(
    whole: PairwiseDistribution | None, within: dict[str, PairwiseDistribution | None]
) -> dict[str, float]:
    """What the distribution of all pairs and those of the pairs within each sport say; None is one without pairs."""
    if whole is None:
        return {}
    values = {"width": whole.width, "mean": whole.mean, "std": whole.std, "uniformity": quality.uniformity(whole)}
    within = {sport: distribution for sport, distribution in within.items() if distribution}
    return values | ({"width_within": similarity.mean_width(within)} if within else {})


def _resampled_range_values(
    embeddings: Float[np.ndarray, "n dim"],
    sports: Int[np.ndarray, " n"],
    wordings: Int[np.ndarray, " n"],
    times: Int[np.ndarray, "replicates n"],
) -> pd.DataFrame:
    """`_range_values` of each replicate, in a row."""
    whole = resampled_distributions(embeddings, times, np.arange(len(embeddings)))
    within = {
        str(sport): resampled_distributions(embeddings[rows], times[:, rows], wordings[rows])
        for sport, rows in pd.Series(sports).groupby(sports).indices.items()
        if len(set(wordings[rows])) > 1
    }
    return pd.DataFrame(
        [_range_values(whole[i], {sport: drawn[i] for sport, drawn in within.items()}) for i in range(len(times))],
        dtype=float,
    )


def _everyday_order(encode: Encode, pairs: pd.DataFrame, replicates: int, seed: int) -> tuple[float, list[float]]:
    """The order of pairs of other topics, and that of each resample."""
    cosines, grades = cosines_of_pairs(encode, pairs), pairs["grade"].to_numpy()
    samples = resampled_rows(clusters_of(pairs), replicates, seed)
    return quality.order(cosines, grades), [quality.order(cosines[rows], grades[rows]) for rows in samples]


def _checksum(texts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


class _Graded(NamedTuple):
    """Cosines of graded pairs, or a resample of them."""

    cosines: Cosines
    grades: Grades
    groups: Int[np.ndarray, " pairs"]  # kind and grade as one number, see `_groups`
    clusters: Int[np.ndarray, " pairs"]

    def of(self, groups: Sequence[int]) -> "_Graded":
        chosen = np.isin(self.groups, groups)
        return _Graded(*(values[chosen] for values in self))

    def balanced(self) -> "_Graded":
        return self.of(_groups("balanced", ALL_GRADES))

    def resamples(self, replicates: int, seed: int) -> list["_Graded"]:
        samples = resampled_rows(self.clusters, replicates, seed)
        return [_Graded(*(values[rows] for values in self)) for rows in samples]


def _graded(cosines: Cosines, pairs: pd.DataFrame) -> _Graded:
    if not len(pairs):
        raise ValueError("no pairs to score")
    grades = pairs["grade"].to_numpy()
    quality.check_graded(cosines, grades)
    groups = len(ALL_GRADES) * pairs["kind"].map(KINDS.index).to_numpy() + grades
    return _Graded(cosines, grades, groups, clusters_of(pairs))


def _pair_values(graded: _Graded, others: _Graded | None = None) -> dict[str, float]:
    """The `PAIR_MEASURES` for which there are at least ten pairs, and two of each kind and grade that they need; and
    the recalls at thresholds chosen on `others`. What is undefined, such as the order of equal cosines, is left out."""
    values, counts = {}, np.bincount(graded.groups, minlength=len(KINDS) * len(ALL_GRADES))
    for name, (groups, measure) in PAIR_MEASURES.items():
        if counts[groups].min() > 1 and counts[groups].sum() >= FEWEST_PAIRS:
            chosen = graded.of(groups)
            with contextlib.suppress(ValueError):
                values[name] = measure(chosen.cosines, chosen.grades)
    if others and "related_auc" in values:
        chosen_on, judged_on = others.balanced(), graded.balanced()
        to_find, related = judged_on.cosines[judged_on.grades >= RELATED_FROM], chosen_on.grades >= RELATED_FROM
        if len(to_find) and 0 < related.sum() < len(related):  # which may fail in a replicate of few pairs
            values |= quality.recalls(chosen_on.cosines, related, to_find)
    return values
