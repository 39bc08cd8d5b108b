"""A model's scorecard: what is measured, values with intervals, and several cards compared."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from src.quality import Cosines
from src.similarity import PairwiseDistribution

MEASURES = {
    "width": "p95 - p5 of the cosines of all pairs",
    "width_within": "the same within a sport, mean over sports; pairs of one wording left out",
    "mean": "mean cosine of all pairs (anisotropy)",
    "std": "standard deviation of the cosines of all pairs",
    "recall_at_precision[0.9]": "related pairs found at a precision of 0.9; threshold from validation pairs",
    "recall_at_fpr[0.05]": "related pairs found where 5 % of the unrelated ones are called related, too",
    "recall_at_fpr[0.01]": "related pairs found where 1 % of the unrelated ones are called related, too",
    "related_auc": "probability that a related pair (grade 2 or more) is above an unrelated one",
    "topic_order": "Spearman with grades 0, 1, 2: other sport, same sport, same kind of event",
    "fact_order": "Spearman with grades 2, 3, 4: same kind of event, one fact differs, same facts",
    "order": "Spearman with all grades (proves little: shared names alone raise it)",
    **{f"rung_auc[{k}]": f"probability that grade {k} is above grade {k - 1}" for k in (1, 2, 3, 4)},
    "name_trap_auc": "probability that the same kind of event, no name shared, is above other sports with shared names",
    "wording_trap_auc": "probability that the same facts reworded are above one changed fact in the same wording",
    "adversarial_topic_order": "topic order where shared names and wordings mislead",
    "adversarial_fact_order": "fact order where shared wordings mislead",
    "adversarial_order": "order of all grades where shared names and wordings mislead",
    "everyday_order": "Spearman with the grades of pairs of other topics: what was not to be forgotten",
    "alignment": "mean squared distance of sentences that state the same facts",
    "uniformity": "log mean exp(-2 squared distance) over all pairs",
    "effective_rank": "exp(entropy of the singular values): directions in use",
}  # fmt: skip
MAIN = (
    "width", "width_within", "recall_at_precision[0.9]", "recall_at_fpr[0.01]", "everyday_order",
    "topic_order", "fact_order", "name_trap_auc", "adversarial_topic_order", "adversarial_fact_order",
)  # fmt: skip
BY_EPOCH = ("width", "width_within", "mean", "effective_rank", "topic_order", "fact_order", "everyday_order")


@dataclass(frozen=True, eq=False)
class Scorecard:
    """Measures of one encoder on one corpus, and what pictures show of it.

    `replicates` holds the values of a measure on resampled events, a column a measure; cards that were resampled alike
    have paired replicates."""

    name: str
    values: dict[str, float]
    replicates: pd.DataFrame
    settings: dict
    distribution: PairwiseDistribution | None = None  # of the cosines of all pairs of sentences
    cosines: Cosines | None = None  # of the balanced graded pairs

    def estimate(self, measure: str, minus: "Scorecard | None" = None) -> tuple[float, float, float]:
        """The measure, or its difference to that of another card on the same data, with its 95 % interval: (value, low,
        high). `effective_rank` is measured once and has no interval (NaN)."""
        value, replicates = self.values[measure], self.replicates.get(measure, pd.Series([np.nan]))
        if minus:
            if self.settings != minus.settings:
                raise ValueError(f"{self.name} and {minus.name} were not scored on the same data in the same way")
            value = value - minus.values[measure]
            replicates = replicates - minus.replicates.get(measure, np.nan)
        low, high = replicates.quantile([0.025, 0.975])  # without the replicates in which it is undefined
        return value, float(low), float(high)

    def estimates(self) -> dict[str, list[float | None]]:
        """Every measure with its interval, as JSON holds it: None where there is none."""
        return {m: [None if np.isnan(x) else x for x in self.estimate(m)] for m in self.values}


def compare(cards: Sequence[Scorecard], measures: Iterable[str] = MEASURES, intervals: bool = True) -> pd.DataFrame:
    """A row a measure, a column a card: "value [low, high]", with a star where the 95 % interval of the paired
    difference to the first card excludes 0 (`plots.differences` draws it). Raises `ValueError` for cards of different
    data, seeds or replicates."""
    table = pd.DataFrame(index=[m for m in measures if any(m in card.values for card in cards)])
    for card in cards:
        table[card.name] = ""
        for measure in [m for m in table.index if m in card.values]:
            value, low, high = card.estimate(measure)
            words = f"{value:.3f}" + (f" [{low:.3f}, {high:.3f}]" if intervals and not np.isnan(low) else "")
            if measure in cards[0].values:
                _, low, high = card.estimate(measure, minus=cards[0])
                words += "*" * (low > 0 or high < 0)
            table.loc[measure, card.name] = words
    return table


def rescaled(card: Scorecard, width: float) -> Scorecard:
    """The card if each cosine c became a + b c, with the b that gives this width. Ranges grow in proportion; all orders
    and decisions stay what they are, to the last digit."""
    grow = width / card.values["width"]
    # a new measure that an affine map changes belongs in one of these two
    scaled, lost = ("width", "width_within", "std"), ("mean", "uniformity", "alignment")
    factors = {m: grow if m in scaled else 1.0 for m in card.values if m not in lost}
    values = {m: card.values[m] * factor for m, factor in factors.items()}
    kept = [m for m in card.replicates if m in factors]
    drawn = card.replicates[kept] * [factors[m] for m in kept]
    return Scorecard(f"{card.name}, rescaled", values, drawn, card.settings)
