"""Is the wider range a better one? Order, separation and geometry, one function a measure."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import mannwhitneyu, spearmanr
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.metrics import roc_curve

from src.similarity import CENTRES, PairwiseDistribution, check_rows

TOPIC, FACTS, ALL_GRADES = (0, 1, 2), (2, 3, 4), (0, 1, 2, 3, 4)
Cosines = Float[np.ndarray, " pairs"]
Grades = Int[np.ndarray, " pairs"]
Scale = Grades | Float[np.ndarray, " pairs"]  # grades of any scale
Related = Bool[np.ndarray, " pairs"]
WORD = r"(?u)\b\w\w+\b|[^\w\s.,;:!?'\"()-]"  # two letters or more, or a symbol: there are sentences of emoji alone
RELATED_FROM = 2  # the grade from which on two sentences count as related: the same kind of event
# For each recall: the test that a threshold must pass, given its true- and false-positive rates (both classes weigh the
# same), and the fewest unrelated pairs from which that can be judged.
WANTED = {
    "recall_at_precision[0.9]": (lambda tpr, fpr: tpr >= 0.9 * (tpr + fpr), 10),
    "recall_at_fpr[0.05]": (lambda tpr, fpr: fpr <= 0.05, 20),
    "recall_at_fpr[0.01]": (lambda tpr, fpr: fpr <= 0.01, 100),
}


# ---- order and separation, of pairs of known grade ----


def order(cosines: Cosines, grades: Scale, among: tuple[int, ...] | None = None) -> float:
    """Spearman correlation of cosine and grade over the pairs of the grades named, or of all pairs, in [-1, 1].

    `topic_order` is `among=TOPIC`, `fact_order` is `among=FACTS`; grades should be equally frequent. Raises
    `ValueError` where it is undefined: all cosines or all grades equal.
    """
    check_graded(cosines, grades)
    chosen = np.ones(len(grades), bool) if among is None else np.isin(grades, among)
    if len(set(grades[chosen])) < 2 or np.ptp(cosines[chosen]) == 0:
        raise ValueError(
            f"no order among {among or 'all'} grades: {chosen.sum()} pairs with equal grades or equal cosines"
        )
    return float(spearmanr(cosines[chosen], grades[chosen]).statistic)


def auc(higher: Cosines, lower: Float[np.ndarray, " others"]) -> float:
    """Probability that a pair of `higher` has a higher cosine than one of `lower`, an equal one counting half: the area
    under the ROC curve, in [0, 1] (Mann & Whitney 1947)."""
    if not (len(higher) and len(lower) and np.isfinite(higher).all() and np.isfinite(lower).all()):
        raise ValueError(
            f"no AUC of {len(higher)} above {len(lower)} cosines: one or more on each side, none of them NaN"
        )
    return float(mannwhitneyu(higher, lower, method="asymptotic").statistic / (len(higher) * len(lower)))


def rung_auc(cosines: Cosines, grades: Grades, k: int) -> float:
    """AUC of the pairs of grade k above those of grade k-1."""
    return auc(cosines[grades == k], cosines[grades == k - 1])


def check_graded(cosines: Cosines, grades: Float[np.ndarray, " others"] | Int[np.ndarray, " others"]) -> None:
    """Raise `ValueError` unless there is one finite cosine for each grade."""
    if len(cosines) != len(grades):
        raise ValueError(f"{len(cosines)} cosines, but {len(grades)} grades")
    if len(wrong := np.flatnonzero(~np.isfinite(cosines))):
        raise ValueError(f"the cosine of pair {wrong[0]} is {cosines[wrong[0]]}")


def word_overlap(train: Sequence[str], first: Sequence[str], second: Sequence[str]) -> dict[str, Cosines]:
    """Three similarities of sentence i of `first` and of `second` that know shared words and nothing else, in [0, 1]:
    cosines of TF-IDF of words and of character 3-5-grams, both fitted on `train`, and the Jaccard index of the sets of
    words. The best of them is the control of every order."""
    similarities = {}
    for name, options in {
        "word TF-IDF": {"token_pattern": WORD},
        "character 3-5-gram TF-IDF": {"analyzer": "char", "ngram_range": (3, 5)},
    }.items():
        vectorizer = TfidfVectorizer(**options).fit(train)
        products = vectorizer.transform(first).multiply(vectorizer.transform(second))
        similarities[name] = np.asarray(products.sum(1)).ravel()  # 0 where a sentence has no known word
    words = CountVectorizer(binary=True, token_pattern=WORD).fit([*first, *second])
    one, two = words.transform(first), words.transform(second)
    shared, sizes = (np.asarray(counts.sum(1)).ravel() for counts in (one.multiply(two), one + two))
    similarities["Jaccard"] = shared / np.maximum(sizes - shared, 1)
    return similarities


# ---- decisions ----


def recalls(
    cosines: Float[np.ndarray, " chosen_on"],
    related: Bool[np.ndarray, " chosen_on"],
    related_cosines: Float[np.ndarray, " judged_on"],
) -> dict[str, float]:
    """The share of `related_cosines` that reach the lowest threshold that meets each of `WANTED` on the other pairs.

    Related and unrelated pairs weigh the same, whatever their number; what cannot be known from so few unrelated ones
    is left out.
    """
    fpr, tpr, thresholds = roc_curve(related, cosines, drop_intermediate=False)  # the first is infinity
    return {
        name: float((related_cosines >= thresholds[meets(tpr, fpr)].min()).mean())
        for name, (meets, fewest) in WANTED.items()
        if (~related).sum() >= fewest
    }


# ---- geometry, of one set of embeddings ----


def alignment(positive_cosines: Cosines) -> float:
    """Mean squared distance of pairs that mean the same (grade 4), mean(2 - 2 cos), in [0, 4]; 0 is best (Wang & Isola
    2020, arXiv 2005.10242, with alpha = 2)."""
    if not len(positive_cosines):
        raise ValueError("no pairs that mean the same, so no alignment")
    return float(np.mean(2 - 2 * positive_cosines))


def uniformity(distribution: PairwiseDistribution) -> float:
    """log mean exp(-2 |x_i - x_j|^2) over all pairs, in [-8, 0]; lower is more uniform (Wang & Isola 2020, t = 2).

    From the bins, whose width of 0.0005 puts it off by less than 0.001.
    """
    return float(np.log(np.average(np.exp(-4 + 4 * CENTRES), weights=distribution.counts)))


def effective_rank(embeddings: Float[np.ndarray, "n dim"]) -> float:
    """exp(entropy of the normalised singular values of the centred matrix), in [1, dim] (Roy & Vetterli 2007)."""
    check_rows(embeddings)
    if not np.ptp(embeddings, 0).any():
        raise ValueError(f"all {len(embeddings)} rows are equal: they differ in no direction")
    values = np.linalg.svd(embeddings - embeddings.mean(0), compute_uv=False)
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))
