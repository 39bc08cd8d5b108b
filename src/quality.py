"""Is the wider range a better one? Order and geometry, one function a measure."""

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score


def anisotropy(embeddings: Float[np.ndarray, "n dim"]) -> float:
    """Mean cosine of all pairs, in [-1, 1]; 0 for embeddings that point everywhere (Ethayarajh 2019)."""
    n = len(embeddings)
    total = embeddings.sum(0, dtype=np.float64)
    return float((total @ total - np.square(embeddings, dtype=np.float64).sum()) / (n * (n - 1)))


def effective_rank(embeddings: Float[np.ndarray, "n dim"]) -> float:
    """exp(entropy of the normalised singular values of the centred matrix), in [1, dim] (Roy & Vetterli 2007)."""
    centred = embeddings - embeddings.mean(0, dtype=np.float64)
    values = np.sqrt(np.clip(np.linalg.eigvalsh(centred.T @ centred), 0, None))
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def order(cosines: Float[np.ndarray, " pairs"], grades: Int[np.ndarray, " pairs"], among: tuple[int, ...]) -> float:
    """Spearman correlation of cosine and grade over the pairs of the grades named, in [-1, 1].

    `topic_order` is `among=(0, 1, 2)`, `fact_order` is `among=(2, 3, 4)`; grades should be equally frequent.
    """
    chosen = np.isin(grades, among)
    return float(spearmanr(cosines[chosen], grades[chosen]).statistic)


def rung_auc(cosines: Float[np.ndarray, " pairs"], grades: Int[np.ndarray, " pairs"], k: int) -> float:
    """Probability that a pair of grade k has a higher cosine than one of grade k-1 (area under the ROC curve)."""
    chosen = np.isin(grades, (k - 1, k))
    return float(roc_auc_score(grades[chosen] == k, cosines[chosen]))
