"""What costs no training: maps of embeddings, fitted on training sentences, as scikit-learn transformers."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin, clone
from sklearn.preprocessing import normalize
from sklearn.utils.validation import check_is_fitted, validate_data

Encode = Callable[[list[str]], Float[np.ndarray, "n dim"]]  # sentences to unit rows


def with_transform(encode: Encode, transform: "AffineMap", sentences: Sequence[str]) -> Encode:
    """`encode` with the transform on top, fitted on these sentences."""
    fitted = clone(transform).fit(encode(list(sentences)))
    return lambda texts: fitted.transform(encode(texts))


class AffineMap(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """x -> (x - mean) @ matrix, to unit length; a row that is mapped to zero stays zero.

    What `fit` leaves: `mean_` of shape (dim,), and `matrix_` of shape (dim, dim).
    """

    def fit(self, X, y=None):
        """Learn the map from embeddings of shape (n, dim); `y` is ignored."""
        X = validate_data(self, X, dtype=[np.float64, np.float32])
        self.mean_ = X.mean(0, dtype=np.float64)
        centred = X - self.mean_
        variances, directions = np.linalg.eigh(centred.T @ centred / len(X))  # ascending
        self.matrix_ = (directions * self._scales(np.clip(variances, 0, None))) @ directions.T
        return self

    def transform(self, X):
        """Embeddings of shape (n, dim) to unit rows of the same shape and type."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return normalize((X - self.mean_) @ self.matrix_).astype(X.dtype)

    def _scales(self, variances: np.ndarray) -> np.ndarray:
        """What to multiply each direction by; variances are ascending, and none is negative."""
        return np.ones_like(variances)


class Centering(AffineMap):
    """Take the mean embedding away: the offset that all sentences share raises every cosine alike."""


class AllButTheTop(AffineMap):
    """Take away the mean and the directions of largest variance (Mu & Viswanath 2018, algorithm 1).

    `directions` is how many; None: a hundredth of the dimensions, as the paper advises.
    """

    def __init__(self, directions=None):
        self.directions = directions

    def _scales(self, variances: np.ndarray) -> np.ndarray:
        count = round(len(variances) / 100) if self.directions is None else self.directions
        if not 0 <= count < max(len(variances), 1):
            raise ValueError(f"directions is {count}: 0 to {len(variances) - 1} of {len(variances)} can be taken away")
        return np.arange(len(variances)) < len(variances) - count


class SpectralScaling(AffineMap):
    """Centre, and multiply each direction of the embeddings' spectrum by its variance to the given power.

    `power` 0 is centring alone; -0.5 makes all variances equal (whitening, Su et al. 2021, arXiv 2103.15316); above 0
    the large directions grow and the range of cosines widens. Directions without variance are taken away.
    """

    def __init__(self, power=0.25):
        self.power = power

    def _scales(self, variances: np.ndarray) -> np.ndarray:
        # only proportions matter: rows are normalised
        shares = variances / max(variances.max(), np.finfo(np.float64).tiny)
        kept = shares > 1e-10
        if self.power < 0 and kept.mean() < 0.95:
            warnings.warn(
                f"{(~kept).sum()} of {len(kept)} directions have no variance and are taken away: whitening wants more "
                "sentences than dimensions",
                stacklevel=3,
            )
        return np.where(kept, np.where(kept, shares, 1) ** self.power, 0)
