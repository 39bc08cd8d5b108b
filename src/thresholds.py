"""From which cosine on two sentences count as related: choose a threshold, calibrate, and evaluate on other pairs."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_curve, roc_curve

from src.bootstrap import REPLICATES, clusters_of, resampled_rows
from src.quality import Cosines, Related, check_graded


def choose_thresholds(
    cosines: Cosines, pairs: pd.DataFrame, related_from: int, precision: float, false_positive_rate: float,
    replicates: int = REPLICATES, seed: int = 0,
) -> dict:  # fmt: skip
    """Where to call two sentences related (grade `related_from` or more), as a value that JSON can hold.

    Two thresholds, each as (value, low, high) with its 95 % interval from resampling events: the lowest cosine at
    which the wanted `precision` is met, and the lowest that no more than the wanted rate of unrelated pairs reach.
    A value of None means that no cosine meets the wish; a `high` of None, that none does in over 2.5 % of replicates.

    `calibration` holds a logistic one (Platt 1999): 1 / (1 + exp(-slope * cosine - intercept)) is the probability of
    being related. Precision and probability hold for pairs of which `share_related` are related; measure them on other
    pairs, with `evaluate_thresholds`. Raises `ValueError` when all pairs are related, or none.
    """
    related = _related(cosines, pairs, related_from)
    lowest = partial(_lowest_thresholds, precision=precision, rate=false_positive_rate)
    estimates = _with_intervals(lowest, (related, cosines), pairs, replicates, seed)
    estimates = [[value if np.isfinite(value) else None for value in estimate] for estimate in estimates]
    names = f"precision {precision:g}", f"false positive rate {false_positive_rate:g}"
    return {
        "thresholds": dict(zip(names, estimates)),
        "calibration": _calibrate(cosines, related),
        "related": f"grade {related_from} or more",
        "share_related": float(related.mean()),
        "pairs": len(related),
    }


def evaluate_thresholds(
    chosen: dict, cosines: Cosines, pairs: pd.DataFrame, related_from: int, replicates: int = REPLICATES, seed: int = 0
) -> dict[str, dict[str, tuple[float, float, float]]]:
    """What thresholds that `choose_thresholds` chose on other pairs do on these: precision, recall and false-positive
    rate of each, and the squared error of the calibrated probability (Brier 1950), with 95 % intervals. What is not
    known is NaN; a threshold that cannot be met has an empty row. Raises `ValueError` as `choose_thresholds` does."""
    related = _related(cosines, pairs, related_from)
    slope, intercept = chosen["calibration"]["slope"], chosen["calibration"]["intercept"]
    squared_errors = (1 / (1 + np.exp(-slope * cosines - intercept)) - related) ** 2
    names, rows = ("precision", "recall", "false positive rate", "squared error of the probability"), {}
    for name, (threshold, low, high) in chosen["thresholds"].items():
        rows[name] = {}
        if threshold is not None:
            arrays = related, cosines >= threshold, squared_errors
            rows[name]["threshold"] = tuple(np.nan if limit is None else limit for limit in (threshold, low, high))
            rows[name] |= dict(zip(names, _with_intervals(_rates, arrays, pairs, replicates, seed)))
    return rows


def _related(cosines: Cosines, pairs: pd.DataFrame, related_from: int) -> Related:
    grades = pairs["grade"].to_numpy()
    check_graded(cosines, grades)
    related = grades >= related_from
    if related.all() or not related.any():
        raise ValueError(f"{len(related)} pairs, all related or all unrelated: related_from is {related_from}")
    return related


def _lowest_thresholds(related: Related, cosines: Cosines, precision: float, rate: float) -> tuple[float, float]:
    """The lowest cosine that meets the precision, and the lowest that meets the false-positive rate; or infinity."""
    if related.all() or not related.any():  # which happens in a replicate
        return np.inf, np.inf
    precisions, _, precision_cuts = precision_recall_curve(related, cosines)
    rates, _, rate_cuts = roc_curve(related, cosines, drop_intermediate=False)
    met = precision_cuts[precisions[:-1] >= precision], rate_cuts[rates <= rate]
    return tuple(float(cuts.min(initial=np.inf)) for cuts in met)


def _rates(related: Related, called: Related, squared_errors: Float[np.ndarray, " pairs"]) -> list[float]:
    shares = related[called], called[related], called[~related], squared_errors
    return [float(share.mean()) if len(share) else np.nan for share in shares]


def _calibrate(cosines: Cosines, related: Related) -> dict[str, float]:
    """Platt's targets lie a little inside 0 and 1, so that pairs told apart without error have a slope, too; here each
    pair counts once with either label, weighted by its target."""
    targets = np.where(related, (related.sum() + 1) / (related.sum() + 2), 1 / ((~related).sum() + 2))
    twice, labels = np.concatenate([cosines, cosines])[:, None], np.repeat([1, 0], len(cosines))
    logistic = LogisticRegression(C=np.inf).fit(twice, labels, np.concatenate([targets, 1 - targets]))
    return {"slope": float(logistic.coef_[0, 0]), "intercept": float(logistic.intercept_[0])}


def _with_intervals(
    measure: Callable, arrays: tuple[np.ndarray, ...], pairs: pd.DataFrame, replicates: int, seed: int
) -> list[tuple[float, float, float]]:
    """Each value of `measure(*arrays)` with its 95 % interval from resampling events. The ends are drawn values
    and not interpolated, because a value may be infinite."""
    samples = resampled_rows(clusters_of(pairs), replicates, seed)
    drawn = np.array([measure(*(array[rows] for array in arrays)) for rows in samples])
    estimates = []
    for value, column in zip(measure(*arrays), drawn.T):
        known = column[~np.isnan(column)]
        low, high = np.quantile(known, [0.025, 0.975], method="inverted_cdf") if len(known) else (np.nan, np.nan)
        estimates.append((value, float(low), float(high)))
    return estimates
