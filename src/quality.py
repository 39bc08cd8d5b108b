"""Is the wider range a better one? Order, separation and geometry, one function a measure."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata, spearmanr
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from src.similarity import PairwiseDistribution

TOPIC, FACTS, ALL_GRADES = (0, 1, 2), (2, 3, 4), (0, 1, 2, 3, 4)
Cosines = Float[np.ndarray, " pairs"]
Grades = Int[np.ndarray, " pairs"]


# ---- order and separation, of pairs of known grade ----


def order(cosines: Cosines, grades: Grades, among: tuple[int, ...] = ALL_GRADES) -> float:
    """Spearman correlation of cosine and grade over the pairs of the grades named, in [-1, 1].

    `topic_order` is `among=TOPIC`, `fact_order` is `among=FACTS`; grades should be equally frequent. Raises
    `ValueError` where it is undefined: all cosines or all grades equal.
    """
    chosen = np.isin(grades, among)
    if len(set(grades[chosen])) < 2 or np.ptp(cosines[chosen]) == 0:
        raise ValueError(f"no order among grades {among}: {chosen.sum()} pairs with equal grades or equal cosines")
    return float(spearmanr(cosines[chosen], grades[chosen]).statistic)


def auc(higher: Cosines, lower: Float[np.ndarray, " others"]) -> float:
    """Probability that a pair of `higher` has a higher cosine than one of `lower`, an equal one counting half: the area
    under the ROC curve, in [0, 1], by way of ranks (Mann & Whitney 1947)."""
    ranks = rankdata(np.concatenate([higher, lower]))[: len(higher)]
    return float((ranks.sum() / len(higher) - (len(higher) + 1) / 2) / len(lower))


def rung_auc(cosines: Cosines, grades: Grades, k: int) -> float:
    """AUC of the pairs of grade k above those of grade k-1."""
    return auc(cosines[grades == k], cosines[grades == k - 1])


def rung_d_prime(cosines: Cosines, grades: Grades, k: int) -> float:
    """(mean_k - mean_k-1) / sqrt((var_k + var_k-1) / 2): unchanged by affine maps of the cosine, not by others (Green &
    Swets 1966). Unbounded; 0 is no separation."""
    higher, lower = cosines[grades == k], cosines[grades == k - 1]
    return float((higher.mean() - lower.mean()) / np.sqrt((higher.var(ddof=1) + lower.var(ddof=1)) / 2))


def word_overlap(train: Sequence[str], first: Sequence[str], second: Sequence[str]) -> dict[str, Cosines]:
    """Three similarities of sentence i of `first` and of `second` that know shared words and nothing else, in [0, 1]:
    cosines of TF-IDF of words and of character 3-5-grams, both fitted on `train`, and the Jaccard index of the sets of
    words. The best of them is the control of every order."""
    similarities = {}
    for name, options in {
        "word TF-IDF": {},
        "character 3-5-gram TF-IDF": {"analyzer": "char", "ngram_range": (3, 5)},
    }.items():
        vectorizer = TfidfVectorizer(**options).fit(train)
        products = vectorizer.transform(first).multiply(vectorizer.transform(second))
        similarities[name] = np.asarray(products.sum(1)).ravel()  # 0 where a sentence has no known word
    words = CountVectorizer(binary=True).fit([*first, *second])
    one, two = words.transform(first), words.transform(second)
    shared, sizes = (np.asarray(counts.sum(1)).ravel() for counts in (one.multiply(two), one + two))
    similarities["Jaccard"] = shared / np.maximum(sizes - shared, 1)
    return similarities


# ---- geometry, of one set of embeddings ----


def alignment(positive_cosines: Cosines) -> float:
    """Mean squared distance of pairs that mean the same (grade 4), mean(2 - 2 cos), in [0, 4]; 0 is best (Wang & Isola
    2020, arXiv 2005.10242, with alpha = 2)."""
    return float(np.mean(2 - 2 * positive_cosines))


def uniformity(distribution: PairwiseDistribution) -> float:
    """log mean exp(-2 |x_i - x_j|^2) over all pairs, in [-8, 0]; lower is more uniform (Wang & Isola 2020, t = 2).

    From the bins, whose width of 0.0005 puts it off by less than 0.001.
    """
    centres = (distribution.edges[:-1] + distribution.edges[1:]) / 2
    return float(np.log(np.average(np.exp(-4 + 4 * centres), weights=distribution.counts)))


def effective_rank(embeddings: Float[np.ndarray, "n dim"], weights: Float[np.ndarray, " n"] | None = None) -> float:
    """exp(entropy of the normalised singular values of the centred matrix), in [1, dim] (Roy & Vetterli 2007); each row
    counts once, or `weights` times."""
    weights = np.ones(len(embeddings)) if weights is None else weights
    centred = embeddings - np.average(embeddings, 0, weights)
    values = np.sqrt(np.clip(np.linalg.eigvalsh((centred * weights[:, None]).T @ centred), 0, None))
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def inverse_participation(embeddings: Float[np.ndarray, "n dim"]) -> float:
    """sum p_i^2 of the normalised eigenvalues of X'X / n, in [1/dim, 1]: mean^2 + std^2 of all cosines, but for the
    diagonal. At zero mean a wider range *is* a lower effective dimension."""
    gram = embeddings.T.astype(np.float64) @ embeddings / len(embeddings)
    return float(np.square(gram).sum() / np.trace(gram) ** 2)
