"""Range, order, separation and geometry of one encoder on one corpus, with intervals; and several of them compared."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset, load_dataset
from jaxtyping import Float, Int
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_curve, roc_curve
from threadpoolctl import threadpool_limits

from src.corpus import (
    PROBE_SECONDS,
    ask_hub,
    check_sentences,
    library_versions,
    names_and_numbers,
    put_names,
    replace_words,
    swap_names,
    write_atomically,
)
from src.encoder import Encoder
from src.postprocessing import Centering
from src.quality import (
    ALL_GRADES,
    FACTS,
    TOPIC,
    alignment,
    auc,
    check_graded,
    effective_rank,
    order,
    rung_auc,
    rung_d_prime,
    uniformity,
)
from src.sentences import GRAMMAR_FOLDER, graded_pairs
from src.similarity import PairwiseDistribution, check_unit_rows, paired_cosines, pairwise_distribution, within_groups

SUBSAMPLE = 2_000  # sentences that the replicates of the distribution's rows are drawn from
RANDOM_PAIRS = 100_000  # for `agreement`
STSB = "sentence-transformers/stsb"
Embed = Callable[[Sequence[str]], Float[np.ndarray, "n dim"]]

MEASURES = {
    "width": "p95 - p5 of the cosines of all pairs",
    "width_within": "the same within a sport, mean over sports",
    "mean": "mean cosine of all pairs (anisotropy)",
    "std": "standard deviation of the cosines of all pairs",
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
    "width", "width_within", "mean", "effective_rank",
    "topic_order", "fact_order", "name_trap_auc", "adversarial_topic_order", "adversarial_fact_order",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Scorecard:
    """Measures of one encoder on one corpus. `replicates[measure]` are the values on resampled events, by which
    intervals are made, and intervals of differences between cards that were resampled alike."""

    name: str
    values: dict[str, float]
    replicates: dict[str, list[float]]
    settings: dict

    def interval(self, measure: str, against: "Scorecard | None" = None) -> tuple[float, float]:
        """95 % interval of the measure, or of its difference to that of another card on the same data; NaN for
        `agreement`, which is measured once."""
        if measure not in self.replicates:
            return np.nan, np.nan
        value, replicates = self.values[measure], np.array(self.replicates[measure])
        if against:
            if self.settings != against.settings:
                raise ValueError(f"{self.name} and {against.name} were not scored on the same data in the same way")
            value, replicates = value - against.values[measure], replicates - np.array(against.replicates[measure])
        low, high = np.nanquantile(replicates, [0.025, 0.975])
        return float(low), float(high)

    @property
    def unknown(self) -> str:
        """What this card cannot say."""
        if any("order" in measure for measure in self.values):
            return ""
        return (
            "No pairs of known relatedness were given: this card shows the range, and cannot show whether cosines "
            "order sentences by relatedness. A few hundred pairs graded by hand would."
        )

    def table(self) -> pd.DataFrame:
        """One row a measure: value, 95 % interval, and what it is."""
        rows = {measure: [value, *self.interval(measure), MEASURES[measure]] for measure, value in self.values.items()}
        return pd.DataFrame.from_dict(rows, "index", columns=["value", "low", "high", "what it is"])

    def _repr_html_(self) -> str:
        return f"<b>{self.name}</b>{self.table().round(3).to_html()}{self.unknown}"

    def save(self, path: Path | str) -> None:
        """Write as JSON."""
        write_atomically(path, lambda file: file.write_text(json.dumps(asdict(self)) + "\n"))

    @classmethod
    def load(cls, path: Path | str) -> "Scorecard":
        return cls(**json.loads(Path(path).read_text()))


def lookup(sentences: Sequence[str], embeddings: Float[np.ndarray, "n dim"]) -> Embed:
    """What `score` takes in place of an encoder: embeddings made before, row i that of sentence i."""
    check_unit_rows(embeddings)
    if len(sentences) != len(embeddings):
        raise ValueError(f"{len(sentences)} sentences, but {len(embeddings)} embeddings")
    rows = {sentence: row for row, sentence in enumerate(sentences)}

    def embed(wanted: Sequence[str]) -> Float[np.ndarray, "n dim"]:
        if missing := [sentence for sentence in wanted if sentence not in rows]:
            raise ValueError(f"{len(missing)} sentences have no embedding, such as {missing[0]!r}")
        return embeddings[[rows[sentence] for sentence in wanted]]

    return embed


def score(
    encoder: Encoder | Embed,
    corpus: Dataset,
    pairs: Dataset | pd.DataFrame | None = None,
    name: str | None = None,
    base: Encoder | Embed | None = None,
    resample: str = "event",
    replicates: int = 200,
    seed: int = 0,
) -> Scorecard:
    """All of `MEASURES` that the data allow, each with a 95 % bootstrap interval.

    `corpus` has a `sentence` column; with `sport` (and `event`) there is `width_within`. `pairs` has `sentence1`,
    `sentence2`, `grade`; without it, the rows that need no grades. `base` is what `agreement` is measured against.

    Resampled are events, or sports for `resample="sport"`, and single sentences where neither is known: never pairs,
    which share sentences. Two copies of one sentence are not paired. Rows of the distribution are computed on all
    sentences; their replicates on a fixed subsample of 2,000, and moved so that their mean is the value: they are
    biased, since an event meets its own copy more often than it meets itself in the corpus.
    """
    embed = _embed(encoder)
    sentences = corpus["sentence"][:]
    embeddings = embed(sentences)
    sports = np.array(corpus["sport"]) if "sport" in corpus.column_names else None
    values = _distribution_values(embeddings, sports)
    if base is not None:
        rng = np.random.default_rng(seed)
        others = _embed(base)(sentences)
        first = rng.integers(0, len(sentences), RANDOM_PAIRS)
        second = (first + rng.integers(1, len(sentences), RANDOM_PAIRS)) % len(sentences)
        cosines = (paired_cosines(x[first], x[second]) for x in (embeddings, others))
        values["agreement"] = float(spearmanr(*cosines).statistic)

    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(sentences))[:SUBSAMPLE]
    clusters = _clusters(corpus.select(chosen).to_pandas(), resample)
    their_sports = None if sports is None else sports[chosen]
    with threadpool_limits(1, "blas"):  # of small matrices: two threads gain nothing, and starve beside other work
        drawn = pd.DataFrame(
            _distribution_replicates(embeddings[chosen], their_sports, clusters, replicates, rng), dtype=float
        )
    moved = {m: (values[m] + drawn[m] - drawn[m].mean()).tolist() for m in values if m in drawn}
    settings = {
        "sentences": len(sentences), "corpus": _fingerprint(sentences), "resample": resample, "replicates": replicates,
        "seed": seed, "versions": library_versions(),
    }  # fmt: skip
    name = name or getattr(encoder, "name", "embeddings")
    if pairs is None:
        return Scorecard(name, values, moved, settings)
    pairs = pairs if isinstance(pairs, pd.DataFrame) else pairs.to_pandas()
    cosines = paired_cosines(embed(pairs["sentence1"].tolist()), embed(pairs["sentence2"].tolist()))
    card = score_pairs(cosines, pairs, name, resample, replicates, seed)
    return Scorecard(name, values | card.values, moved | card.replicates, settings | card.settings)


def score_pairs(
    cosines: Float[np.ndarray, " pairs"],
    pairs: pd.DataFrame,
    name: str,
    resample: str = "event",
    replicates: int = 200,
    seed: int = 0,
) -> Scorecard:
    """The rows that need nothing but the similarity of each graded pair: a word-overlap control has them too.

    Pairs are resampled by the event (or sport) of their first sentence, or by that sentence where neither is known.
    """
    if not len(pairs):
        raise ValueError("no pairs to score")
    grades = pairs["grade"].to_numpy()
    check_graded(cosines, grades)
    kinds = pairs["kind"].to_numpy() if "kind" in pairs else np.full(len(pairs), "balanced")
    values = _pair_values(cosines, grades, kinds)
    rng = np.random.default_rng(seed)
    drawn = []
    clusters = _clusters(pairs, resample)
    rows = [np.flatnonzero(clusters == cluster) for cluster in range(clusters.max() + 1)]
    for times in _multiplicities(clusters, replicates, rng):
        chosen = np.concatenate([np.tile(row, n) for row, n in zip(rows, times) if n])
        drawn.append(_pair_values(cosines[chosen], grades[chosen], kinds[chosen], undefined="left out"))
    settings = {
        "pairs": _fingerprint([*pairs["sentence1"], *pairs["sentence2"]]), "resample": resample,
        "replicates": replicates, "seed": seed,
    }  # fmt: skip
    return Scorecard(name, values, {m: [one.get(m, np.nan) for one in drawn] for m in values}, settings)


def thresholds(
    cosines: Float[np.ndarray, " pairs"],
    pairs: pd.DataFrame,
    related_from: int,
    precision: float,
    false_positive_rate: float,
    replicates: int = 200,
    seed: int = 0,
) -> dict:
    """Where to call two sentences related (grade `related_from` or more), as a value that JSON can hold.

    The lowest cosine from which on the wanted precision is met, and the lowest that no more than the wanted rate of
    unrelated pairs reach, each as (value, low, high) with its 95 % interval from resampling events; None where it
    cannot be met, or not in all but 2.5 % of the replicates. And `slope` and `intercept` of a logistic calibration:
    1 / (1 + exp(-slope * cosine - intercept)) is the probability of being related (Platt 1999). Precision and
    probability hold for pairs of which `share_related` are related; `judge` them on others. Raises `ValueError` when
    all pairs are related, or none.
    """
    check_graded(cosines, pairs["grade"].to_numpy())
    related = pairs["grade"].to_numpy() >= related_from
    if len(set(related.tolist())) < 2:
        raise ValueError(f"{len(related)} pairs, all related or all unrelated: related_from is {related_from}")

    def found(weights: Float[np.ndarray, " pairs"]) -> tuple[float, float]:
        if not 0 < np.average(related, weights=weights) < 1:  # of a replicate
            return np.inf, np.inf
        precisions, _, cuts = precision_recall_curve(related, cosines, sample_weight=weights)
        false, _, others = roc_curve(related, cosines, sample_weight=weights, drop_intermediate=False)
        met = cuts[precisions[:-1] >= precision], others[false <= false_positive_rate]
        return tuple(float(values.min(initial=np.inf)) for values in met)

    wanted = f"precision {precision:g}", f"false positive rate {false_positive_rate:g}"
    limits = zip(found(np.ones(len(cosines))), *_interval(found, pairs, replicates, seed))
    # Platt's targets, a little inside 0 and 1, as each pair once with either label: separable pairs have a slope, too
    inside = np.where(related, (related.sum() + 1) / (related.sum() + 2), 1 / ((~related).sum() + 2))
    twice, labels = np.concatenate([cosines, cosines])[:, None], np.repeat([1, 0], len(cosines))
    logistic = LogisticRegression(C=np.inf).fit(twice, labels, np.concatenate([inside, 1 - inside]))
    return {
        "thresholds": {
            name: [value if np.isfinite(value) else None for value in map(float, of)]
            for name, of in zip(wanted, limits)
        },
        "calibration": {"slope": float(logistic.coef_[0, 0]), "intercept": float(logistic.intercept_[0])},
        "related": f"grade {related_from} or more",
        "share_related": float(related.mean()),
        "pairs": len(related),
    }


def judge(
    found: dict,
    cosines: Float[np.ndarray, " pairs"],
    pairs: pd.DataFrame,
    related_from: int,
    replicates: int = 200,
    seed: int = 0,
) -> dict[str, dict[str, tuple[float, float, float]]]:
    """What the thresholds, `found` on other pairs by `thresholds`, do on these: precision, recall and false-positive
    rate of each, and the squared error of the calibrated probability (Brier 1950), with 95 % intervals. NaN is what
    is not known; a threshold that cannot be met has an empty row."""
    related, rows = pairs["grade"].to_numpy() >= related_from, {}
    slope, intercept = found["calibration"]["slope"], found["calibration"]["intercept"]
    squared = (1 / (1 + np.exp(-slope * cosines - intercept)) - related) ** 2
    for name, (cut, *ends) in found["thresholds"].items():
        rows[name] = {}
        if cut is None:
            continue
        called = cosines >= cut

        def rates(weights: Float[np.ndarray, " pairs"], called=called) -> tuple[float, ...]:
            of = ((related, called), (called, related), (called, ~related), (squared, np.full(len(related), True)))
            return tuple(
                float(np.average(what[among], weights=weights[among])) if weights[among].sum() else np.nan
                for what, among in of
            )

        names = "precision", "recall", "false positive rate", "squared error of the probability"
        limits = zip(rates(np.ones(len(related))), *_interval(rates, pairs, replicates, seed))
        threshold = {"threshold": (cut, *(np.nan if end is None else end for end in ends))}
        rows[name] = threshold | dict(zip(names, limits))
    return rows


def _interval(measure: Callable, pairs: pd.DataFrame, replicates: int, seed: int) -> Float[np.ndarray, "2 values"]:
    """95 % interval of each value that `measure` has of the pairs' weights, from resampling events; of order
    statistics, for a value may be infinite."""
    clusters, rng = _clusters(pairs, "event"), np.random.default_rng(seed)
    drawn = np.array([measure(times[clusters].astype(float)) for times in _multiplicities(clusters, replicates, rng)])
    known = [values[~np.isnan(values)] for values in drawn.T]
    ends = [np.quantile(of, [0.025, 0.975], method="inverted_cdf") if len(of) else (np.nan, np.nan) for of in known]
    return np.array(ends).T


def general_language_pairs(seed: int = 0) -> tuple[pd.DataFrame, str]:
    """Graded pairs (`sentence1`, `sentence2`, `grade`) that are not about sport, and which they are: the test part of
    STS-B where the hub answers, else 400 pairs of everyday topics from data/control."""
    _, error = ask_hub(lambda hub: hub.dataset_info(STSB, timeout=PROBE_SECONDS))
    if error is None:
        return load_dataset(STSB, split="test").to_pandas().rename(columns={"score": "grade"}), "STS-B test"
    pairs = graded_pairs("test", 80, seed, GRAMMAR_FOLDER.parent / "control").to_pandas()
    pairs = pairs[pairs["kind"] == "balanced"].reset_index(drop=True)
    return pairs, "control set of everyday topics (no hub for STS-B)"


def compare(cards: Sequence[Scorecard], measures: Iterable[str] = MEASURES) -> pd.DataFrame:
    """One column a card, "value [low, high]"; a star where the 95 % interval of the paired difference to the first card
    excludes 0 (`plots.differences` is the figure of it). Raises `ValueError` for cards of different data, seeds or
    replicates."""
    table = side_by_side(cards, measures)
    for card in cards[1:]:
        for measure in set(table.index) & set(card.values) & set(cards[0].values):
            low, high = card.interval(measure, against=cards[0])
            table.loc[measure, card.name] += "*" * (low > 0 or high < 0)
    return table


def side_by_side(cards: Sequence[Scorecard], measures: Iterable[str] = MEASURES) -> pd.DataFrame:
    """One column a card, "value [low, high]", of cards whose data may differ; empty where one has no such measure."""
    columns = {
        card.name: {
            m: f"{value:.3f}" + (" [{:.3f}, {:.3f}]".format(*card.interval(m)) if m in card.replicates else "")
            for m, value in card.values.items()
        }
        for card in cards
    }
    return pd.DataFrame(columns).reindex([m for m in measures if any(m in card.values for card in cards)]).fillna("")


def _embed(encoder: Encoder | Embed) -> Embed:
    return encoder.encode if isinstance(encoder, Encoder) else encoder


def _fingerprint(sentences: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(sentences).encode()).hexdigest()[:16]


# ---- what can be known of order without a label ----


def swapped_pairs(sentences: Sequence[str], embed: Embed, seed: int = 0) -> pd.DataFrame:
    """Pairs whose relatedness follows from how they are made, out of raw sentences alone: columns `sentence1`,
    `sentence2`, `same_topic` and `same_facts`.

    Each sentence is paired with its nearest in topic among those in other words (of the words of either, less than 0.3
    in both, where there are such), as it is and with the names and numbers of the first put in, and with one from the
    farther half, with those names. What two sentences are about is told by `embed` (of the base model) when names are
    swapped at random. Sentences without names or numbers are left out, unless all are. Raises `ValueError` when all are
    in the same words.
    """
    found = names_and_numbers(sentences)
    having = [row for row, words in enumerate(found) if words] or range(len(sentences))
    sentences, found = [sentences[row] for row in having], [found[row] for row in having]
    check_sentences(sentences, "what order is looked for in")
    copies = [embed(swap_names(sentences, found, seed + copy)) for copy in range(2)]
    topic = Centering().fit_transform(np.mean(copies, axis=0))
    plain = [set(replace_words(s, dict.fromkeys(ours, "")).lower().split()) for s, ours in zip(sentences, found)]
    rng, rows = np.random.default_rng(seed), []
    for row, (ours, nearness) in enumerate(zip(plain, topic @ topic.T)):
        overlap = np.array([len(ours & theirs) / max(1, len(ours | theirs)) for theirs in plain])
        near = overlap < (0.3 if (overlap < 0.3).sum() > 1 else 1)
        far = near & (nearness < np.median(nearness))
        if not far.any():
            continue
        nearest, other = np.argmax(np.where(near, nearness, -np.inf)), rng.choice(np.flatnonzero(far))
        named = [put_names(sentences[k], found[k], found[row]) for k in (nearest, other)]
        rows += [(sentences[row], named[0], True, True), (sentences[row], sentences[nearest], True, False)]
        rows += [(sentences[row], named[1], False, True)]
    if not rows:
        raise ValueError(f"all {len(sentences)} sentences are in the same words: nothing can be said of order")
    return pd.DataFrame(rows, columns=["sentence1", "sentence2", "same_topic", "same_facts"])


def order_without_labels(encoder: Encoder | Embed, pairs: pd.DataFrame) -> dict[str, float]:
    """How well a model tells topics and facts in `swapped_pairs`, each an AUC in [0, 1]: `topic`, pairs of one topic
    above pairs of two, the names the same in both; `facts`, pairs with the same names above pairs with others, of one
    topic. It favours the model that the pairs were made with, a little."""
    sentences, rows = np.unique([*pairs["sentence1"], *pairs["sentence2"]], return_inverse=True)
    cosines = paired_cosines(*np.split(_embed(encoder)(sentences.tolist())[rows], 2))
    both = cosines[pairs["same_topic"] & pairs["same_facts"]]
    return {"topic": auc(both, cosines[~pairs["same_topic"]]), "facts": auc(both, cosines[~pairs["same_facts"]])}


def regret(values: dict[str, float], base: dict[str, float]) -> float:
    """By how much the worse of the two has fallen below the base's; below 0 where both have risen. Of several epochs
    the one with the least is the one to keep."""
    return max(base[measure] - value for measure, value in values.items())


# ---- measures and their replicates ----


def _distribution_values(embeddings: Float[np.ndarray, "n dim"], sports: np.ndarray | None) -> dict[str, float]:
    distribution = pairwise_distribution(embeddings)
    values = {"width": distribution.width, "mean": distribution.mean, "std": distribution.std}
    if sports is not None and len(set(sports)) < len(sports):
        values["width_within"] = float(np.mean([d.width for d in within_groups(embeddings, sports).values()]))
    return values | {"uniformity": uniformity(distribution), "effective_rank": effective_rank(embeddings)}


def _distribution_replicates(
    embeddings: Float[np.ndarray, "n dim"],
    sports: np.ndarray | None,
    clusters: Int[np.ndarray, " n"],
    replicates: int,
    rng: np.random.Generator,
) -> Iterator[dict[str, float]]:
    """Values on each resampling of the subsample's clusters. Sentence i counts `times[i]` times, a pair as the product,
    and the diagonal, where copies of a sentence would meet, not at all."""
    cosines = embeddings @ embeddings.T
    edges = np.linspace(-1, 1, 4001)
    bins = np.clip((cosines + 1) * 2000, 0, 3999).astype(np.int64)
    groups = [np.flatnonzero(sports == sport) for sport in np.unique(sports)] if sports is not None else []
    centres = (edges[1:] + edges[:-1]) / 2

    def distribution(rows, times):
        weights = np.outer(times[rows], times[rows])
        np.fill_diagonal(weights, 0)
        counts = np.bincount(bins[np.ix_(rows, rows)].ravel(), weights.ravel(), minlength=4000).astype(np.int64)
        mean = np.average(centres, weights=counts)
        return PairwiseDistribution(edges, counts, mean, np.average((centres - mean) ** 2, weights=counts) ** 0.5)

    for draw in _multiplicities(clusters, replicates, rng):
        times = draw[clusters].astype(float)
        rows = np.flatnonzero(times)
        if len(rows) < 2:  # of few sentences
            yield {}
            continue
        whole = distribution(rows, times)
        values = {"width": whole.width, "mean": whole.mean, "std": whole.std, "uniformity": uniformity(whole)}
        present = [group[times[group] > 0] for group in groups]
        if widths := [distribution(group, times).width for group in present if len(group) > 1]:
            values["width_within"] = float(np.mean(widths))
        yield values | {"effective_rank": effective_rank(embeddings[rows], times[rows])}


def _pair_values(
    cosines: Float[np.ndarray, " pairs"], grades: Int[np.ndarray, " pairs"], kinds: np.ndarray, undefined: str = "error"
) -> dict[str, float]:
    """Whatever measures these grades and kinds allow: each grade that one needs is there at least twice. One that is
    undefined nevertheless, such as the order of equal cosines, is an error; of a replicate it is left out."""
    values = {}

    def of(kind: str, grade: int) -> Float[np.ndarray, " chosen"]:
        return cosines[(kinds == kind) & (grades == grade)]

    def add(name: str, needed: Iterable[int], function: Callable, *arguments) -> None:
        if min(needed) > 1:
            try:
                values[name] = function(*arguments)
            except ValueError:
                if undefined == "error":
                    raise

    for prefix, kind in (("", "balanced"), ("adversarial_", "adversarial")):
        there = kinds == kind
        for name, among in (("topic_order", TOPIC), ("fact_order", FACTS), ("order", ALL_GRADES)):
            sizes = [len(of(kind, grade)) for grade in among]
            add(prefix + name, sizes, order, cosines[there], grades[there], among)
    balanced = kinds == "balanced"
    for k in (1, 2, 3, 4):
        sizes = [len(of("balanced", k)), len(of("balanced", k - 1))]
        add(f"rung_auc[{k}]", sizes, rung_auc, cosines[balanced], grades[balanced], k)
        add(f"rung_d_prime[{k}]", sizes, rung_d_prime, cosines[balanced], grades[balanced], k)
    for name, higher, lower in (
        ("name_trap_auc", of("name trap", 2), of("name trap", 0)),
        ("wording_trap_auc", of("balanced", 4), of("wording trap", 3)),
    ):
        add(name, [len(higher), len(lower)], auc, higher, lower)
    if len(same := of("balanced", 4)):
        values["alignment"] = alignment(same)
    return values


# ---- the bootstrap ----


def _clusters(frame: pd.DataFrame, resample: str) -> Int[np.ndarray, " rows"]:
    """The number of the event (or sport, or sentence) that each row is resampled with."""
    if resample not in ("event", "sport"):
        raise ValueError(f"resample is {resample!r}: 'event' or 'sport'")
    if "template1" in frame:  # sport/event/split/number
        names = frame["template1"].str.rsplit("/", n=2 if resample == "event" else 3).str[0]
    elif "sport" in frame and (resample == "sport" or "event" in frame):
        names = frame["sport"] + ("/" + frame["event"] if resample == "event" else "")
    else:
        names = frame["sport1"] if "sport1" in frame else frame["sentence1" if "sentence1" in frame else "sentence"]
    return pd.factorize(names)[0].astype(np.int64)


def _multiplicities(
    clusters: Int[np.ndarray, " rows"], replicates: int, rng: np.random.Generator
) -> Iterator[Int[np.ndarray, " clusters"]]:
    """How often each cluster is drawn, when as many as there are are drawn with replacement."""
    count = clusters.max() + 1
    for _ in range(replicates):
        yield np.bincount(rng.integers(0, count, count), minlength=count)
