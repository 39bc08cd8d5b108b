"""All measures of one encoder on one corpus, with intervals; and several encoders compared."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import spearmanr

from src import quality, similarity
from src.bootstrap import REPLICATES, clusters_of, join_clusters, multiplicities, resampled_distributions
from src.quality import ALL_GRADES, FACTS, RELATED_FROM, TOPIC, Cosines, Grades
from src.records import library_versions
from src.similarity import PairwiseDistribution, cosines_of_pairs, paired_cosines
from src.transforms import Encode

SUBSAMPLE = 2_000  # sentences that the intervals of range and geometry are made of
FEWEST_PAIRS = 10  # that a measure is known from
RANDOM_PAIRS = 100_000  # for `agreement`

MEASURES = {
    "width": "p95 - p5 of the cosines of all pairs",
    "width_within": "the same within a sport, mean over sports; pairs of one wording left out",
    "mean": "mean cosine of all pairs (anisotropy)",
    "std": "standard deviation of the cosines of all pairs",
    "recall_at_precision[0.9]": "related pairs found at a precision of 0.9; threshold from validation pairs",
    "recall_at_fpr[0.05]": "related pairs found where 5 % of the unrelated ones are called related, too",
    "recall_at_fpr[0.01]": "related pairs found where 1 % of the unrelated ones are called related, too",
    "related_auc": "probability that a related pair (grade 2 or more) is above an unrelated one",
    "topic_order": "Spearman with grades 0, 1, 2: other sport, same sport, same event",
    "fact_order": "Spearman with grades 2, 3, 4: same event, one fact differs, same facts",
    "order": "Spearman with all grades (proves little: shared names alone raise it)",
    **{f"rung_auc[{k}]": f"probability that grade {k} is above grade {k - 1}" for k in (1, 2, 3, 4)},
    "name_trap_auc": "probability that the same event without a shared name is above other sports with shared names",
    "wording_trap_auc": "probability that the same facts reworded are above one changed fact in the same wording",
    "adversarial_topic_order": "topic order where shared names and wordings mislead",
    "adversarial_fact_order": "fact order where shared wordings mislead",
    "adversarial_order": "order of all grades where shared names and wordings mislead",
    **{f"rung_d_prime[{k}]": f"separation of grade {k} from {k - 1}, in standard deviations" for k in (1, 2, 3, 4)},
    "alignment": "mean squared distance of sentences that state the same facts",
    "uniformity": "log mean exp(-2 squared distance) over all pairs",
    "effective_rank": "exp(entropy of the singular values): directions in use",
    "agreement": "Spearman with the base model's cosines on random pairs",
}  # fmt: skip
MAIN = (
    "width", "width_within", "recall_at_precision[0.9]", "recall_at_fpr[0.01]",
    "topic_order", "fact_order", "name_trap_auc", "adversarial_topic_order", "adversarial_fact_order",
)  # fmt: skip
# Measures of graded pairs: the kinds and grades that each needs, and its function of the cosines and grades of these.
PAIR_MEASURES = {
    **{
        prefix + name: ([(kind, grade) for grade in among], partial(quality.order, among=among))
        for prefix, kind in (("", "balanced"), ("adversarial_", "adversarial"))
        for name, among in (("topic_order", TOPIC), ("fact_order", FACTS), ("order", ALL_GRADES))
    },
    **{
        f"{name}[{k}]": ([("balanced", k), ("balanced", k - 1)], partial(measure, k=k))
        for name, measure in (("rung_auc", quality.rung_auc), ("rung_d_prime", quality.rung_d_prime))
        for k in (1, 2, 3, 4)
    },
    "related_auc": (
        [("balanced", grade) for grade in ALL_GRADES],
        lambda c, g: quality.auc(c[g >= RELATED_FROM], c[g < RELATED_FROM]),
    ),
    "name_trap_auc": ([("name trap", 2), ("name trap", 0)], lambda c, g: quality.auc(c[g == 2], c[g == 0])),
    "wording_trap_auc": ([("balanced", 4), ("wording trap", 3)], partial(quality.rung_auc, k=4)),
    "alignment": ([("balanced", 4)], lambda c, g: quality.alignment(c)),
}


@dataclass(frozen=True, eq=False)
class Scorecard:
    """Measures of one encoder on one corpus. `replicates` holds the values of a measure on resampled events, a column a
    measure; cards that were resampled alike have paired replicates."""

    name: str
    values: dict[str, float]
    replicates: pd.DataFrame
    settings: dict

    def estimate(self, measure: str, minus: "Scorecard | None" = None) -> tuple[float, float, float]:
        """The measure, or its difference to that of another card on the same data, with its 95 % interval: (value, low,
        high). `effective_rank` and `agreement` are measured once and have no interval (NaN)."""
        value, replicates = self.values[measure], self.replicates.get(measure, pd.Series([np.nan]))
        if minus:
            if self.settings != minus.settings:
                raise ValueError(f"{self.name} and {minus.name} were not scored on the same data in the same way")
            value = value - minus.values[measure]
            replicates = replicates - minus.replicates.get(measure, np.nan)
        low, high = replicates.quantile([0.025, 0.975])  # without the replicates in which it is undefined
        return value, float(low), float(high)

    def estimates(self) -> dict[str, tuple[float, float, float]]:
        """Every measure with its interval, as JSON holds it."""
        return {measure: self.estimate(measure) for measure in self.values}


def score(
    name: str, encode: Encode, corpus: pd.DataFrame, pairs: pd.DataFrame | None = None, base: Encode | None = None,
    resample: str = "event", replicates: int = REPLICATES, seed: int = 0, thresholds_from: pd.DataFrame | None = None,
) -> Scorecard:  # fmt: skip
    """All of `MEASURES` that the data allow, with 95 % bootstrap intervals.

    `corpus` has a column `sentence`; with `sport` (and `event`) there is `width_within`, in which pairs of one
    `template`, where that is known, do not count. `pairs` is a table of `load_pairs`; without it, there are only the
    measures that need no grades. `thresholds_from` are other pairs: recalls are at thresholds chosen on them.
    `agreement` is with `base`.

    Events are resampled, or sports for `resample="sport"`; where a table knows neither, single sentences. Never pairs,
    which share sentences. The replicates of range are of a fixed subsample of 2,000 sentences. They are moved so that
    their mean is the value on all sentences, since an event meets its own copy more often in a resample.
    """
    sentences = corpus["sentence"].tolist()
    embeddings = encode(sentences)
    single = np.arange(len(corpus))  # each sentence its own sport: no pair; each its own wording: all pairs
    known = [corpus[column] if column in corpus else single for column in ("sport", "template")]
    sports, wordings = (pd.factorize(names)[0] for names in known)
    within = similarity.within_groups(embeddings, sports, wordings) if len(set(sports)) < len(sports) else {}
    values = _range_values(similarity.pairwise_distribution(embeddings), within)

    rows = np.random.default_rng(seed).permutation(len(sentences))[:SUBSAMPLE]
    clusters = join_clusters(clusters_of(corpus.iloc[rows], resample), seed)
    times = multiplicities(clusters, replicates, seed)
    replicates_of_range = _resampled_range_values(embeddings[rows], sports[rows], wordings[rows], clusters, times)
    drawn = pd.DataFrame(replicates_of_range, dtype=float)
    drawn = drawn - drawn.mean() + pd.Series(values)

    values["effective_rank"] = quality.effective_rank(embeddings)
    if base is not None:
        values["agreement"] = _agreement(embeddings, base(sentences), seed)
    settings = {"resample": resample, "replicates": replicates, "seed": seed, "versions": library_versions()}
    settings |= {"sentences": len(sentences), "corpus": _fingerprint(sentences)}
    if pairs is None:
        return Scorecard(name, values, drawn, settings)
    others = None if thresholds_from is None else (cosines_of_pairs(encode, thresholds_from), thresholds_from)
    card = score_pairs(name, cosines_of_pairs(encode, pairs), pairs, resample, replicates, seed, others)
    return Scorecard(name, values | card.values, pd.concat([drawn, card.replicates], axis=1), settings | card.settings)


def score_pairs(
    name: str, cosines: Cosines, pairs: pd.DataFrame,
    resample: str = "event", replicates: int = REPLICATES, seed: int = 0,
    thresholds_from: tuple[Float[np.ndarray, " others"], pd.DataFrame] | None = None,
) -> Scorecard:  # fmt: skip
    """The measures that need nothing but the similarity of each graded pair: a word-overlap control has them too.

    Pairs are resampled by the event (or sport) of their first sentence, or by that sentence where neither is known.
    `thresholds_from` are the cosines and the table of other pairs, resampled alike.
    """
    graded = _graded(cosines, pairs, resample)
    others = thresholds_from and _graded(*thresholds_from, resample)
    values = _pair_values(graded, others)
    of_others = _resamples(others, replicates, seed + 1) if others else repeat(None)
    drawn = [_pair_values(*samples, skip=True) for samples in zip(_resamples(graded, replicates, seed), of_others)]
    tables = [pairs, thresholds_from[1]] if thresholds_from else [pairs]
    sentences = [sentence for table in tables for column in ("sentence1", "sentence2") for sentence in table[column]]
    settings = {"resample": resample, "replicates": replicates, "seed": seed, "pairs": _fingerprint(sentences)}
    return Scorecard(name, values, pd.DataFrame(drawn, columns=list(values), dtype=float), settings)


def compare(cards: Sequence[Scorecard], measures: Iterable[str] = MEASURES) -> pd.DataFrame:
    """`side_by_side`, with a star where the 95 % interval of the paired difference to the first card excludes 0
    (`plots.differences` draws it). Raises `ValueError` for cards of different data, seeds or replicates."""
    table = side_by_side(cards, measures)
    for card in cards[1:]:
        for measure in set(table.index) & set(card.values) & set(cards[0].values):
            _, low, high = card.estimate(measure, minus=cards[0])
            table.loc[measure, card.name] += "*" * (low > 0 or high < 0)
    return table


def side_by_side(cards: Sequence[Scorecard], measures: Iterable[str] = MEASURES) -> pd.DataFrame:
    """One column a card, "value [low, high]", of cards whose data may differ; empty where one has no such measure."""
    columns = {card.name: {m: format_estimate(card.estimate(m)) for m in card.values} for card in cards}
    return pd.DataFrame(columns).reindex([m for m in measures if any(m in card.values for card in cards)]).fillna("")


def values_of(cards: Sequence[Scorecard], measures: Sequence[str]) -> pd.DataFrame:
    """One row a card, for a notebook: values without their intervals, with the stars of `compare`."""
    rows = compare(cards, measures).T
    return rows.map(lambda text: text.split(" [")[0] + "*" * text.endswith("*"))


def rescaled(card: Scorecard, width: float) -> Scorecard:
    """What c -> a + b c makes of a card, with b so that the width is the one given. Ranges grow in proportion; all
    orders and decisions stay what they are, to the last digit."""
    ranges = ["width", "width_within", "std"]
    factors = {m: width / card.values["width"] if m in ranges else 1.0 for m in card.values}
    factors = {m: factor for m, factor in factors.items() if m not in ("mean", "uniformity", "alignment")}
    values = {m: card.values[m] * factor for m, factor in factors.items()}
    kept = [m for m in card.replicates if m in factors]
    drawn = card.replicates[kept] * [factors[m] for m in kept]
    return Scorecard(f"{card.name}, rescaled", values, drawn, card.settings)


def format_estimate(estimate: Sequence[float]) -> str:
    value, low, high = estimate
    return f"{value:.3f}" + ("" if np.isnan(low) else f" [{low:.3f}, {high:.3f}]")


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
    clusters: Int[np.ndarray, " n"],
    times: Int[np.ndarray, "replicates clusters"],
) -> list[dict[str, float]]:
    """`_range_values` of each replicate."""
    whole = resampled_distributions(embeddings, clusters, times, np.arange(len(embeddings)))
    within = {
        str(sport): resampled_distributions(embeddings[rows], clusters[rows], times, wordings[rows])
        for sport, rows in pd.Series(sports).groupby(sports).indices.items()
        if len(set(wordings[rows])) > 1
    }
    return [
        _range_values(distribution, dict(zip(within, of_sports)))
        for distribution, *of_sports in zip(whole, *within.values())
    ]


def _agreement(embeddings: Float[np.ndarray, "n dim"], base: Float[np.ndarray, "n other"], seed: int) -> float:
    rng, n = np.random.default_rng(seed), len(embeddings)
    first = rng.integers(0, n, RANDOM_PAIRS)
    second = (first + rng.integers(1, n, RANDOM_PAIRS)) % n
    return float(spearmanr(*(paired_cosines(rows[first], rows[second]) for rows in (embeddings, base))).statistic)


def _fingerprint(sentences: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(sentences).encode()).hexdigest()[:16]


class _Graded(NamedTuple):
    """Cosines of graded pairs, or a resample of them."""

    cosines: Cosines
    grades: Grades
    clusters: Int[np.ndarray, " pairs"]
    rows: dict[tuple[str, int], Int[np.ndarray, " rows"]]  # of each kind and grade


def _graded(cosines: Cosines, pairs: pd.DataFrame, resample: str) -> _Graded:
    if not len(pairs):
        raise ValueError("no pairs to score")
    grades = pairs["grade"].to_numpy()
    quality.check_graded(cosines, grades)
    return _Graded(cosines, grades, clusters_of(pairs, resample), pairs.groupby(["kind", "grade"]).indices)


def _resamples(graded: _Graded, replicates: int, seed: int) -> Iterator[_Graded]:
    for times in multiplicities(graded.clusters, replicates, seed):
        rows = {group: np.repeat(rows, times[graded.clusters[rows]]) for group, rows in graded.rows.items()}
        yield graded._replace(rows=rows)


def _pair_values(graded: _Graded, others: _Graded | None = None, skip: bool = False) -> dict[str, float]:
    """Those of `PAIR_MEASURES` for which there are ten pairs, two of each kind and grade that they need, and the
    recalls at thresholds chosen on `others`. A measure that is undefined nevertheless, such as the order of equal
    cosines, is an error, or skipped."""
    values = {}
    for name, (needed, measure) in PAIR_MEASURES.items():
        rows = [graded.rows.get(group, []) for group in needed]
        if min(map(len, rows)) < 2 or sum(map(len, rows)) < FEWEST_PAIRS:
            continue
        rows = np.concatenate(rows)
        try:
            values[name] = measure(graded.cosines[rows], graded.grades[rows])
        except ValueError:
            if not skip:
                raise
    if others and "related_auc" in values:
        chosen_on, judged_on = (
            np.concatenate([sample.rows.get(("balanced", grade), []) for grade in ALL_GRADES]).astype(int)
            for sample in (others, graded)
        )
        found = judged_on[graded.grades[judged_on] >= RELATED_FROM]
        related = others.grades[chosen_on] >= RELATED_FROM
        if len(found) and 0 < related.sum() < len(related):  # which may fail in a replicate of few pairs
            values |= quality.recalls(others.cosines[chosen_on], related, graded.cosines[found])
    return values
