"""What graded pairs buy where people wrote the sentences and graded the pairs: SICK, and the genres of STS-B.

python -m experiments.human_grades PATH [PATH ...] [--draws 0 1 2]

PATH is a CSV with the columns sentence1, sentence2, score, and genre where there are several; or a dataset of the hub
with the same columns, such as mteb/sickr-sts. The splits of these files share sentences (three in four of SICK's test
sentences). So pairs that are linked by a sentence form a family, and whole families are dealt to train, validation and
test. A JSON line a run in experiments/human_grades.jsonl, a minute of two cores; what is in the file is not done
again. Then figures/human_grades.json and .png are drawn. No sentence is kept.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from datasets import load_dataset
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import spearmanr

from experiments import (
    CACHE,
    FIGURES,
    MAX_LENGTH,
    MODEL,
    append_run,
    label_curves,
    mean_and_range,
    read_lines,
    runs_to_do,
)
from experiments.labels import OTHERS, OWN, train_there
from src import plots
from src.bootstrap import resampled_rows
from src.encoder import load_encoder
from src.quality import recalls
from src.records import ROOT
from src.settings import TrainingSettings
from src.similarity import cosines_of_pairs, pairwise_distribution
from src.training import fine_tune
from src.transforms import Encode, SpectralScaling, with_transform

RESULTS = ROOT / "experiments" / "human_grades.jsonl"
SHARES = {"train": 0.5, "validation": 0.2, "test": 0.3}  # of the families
TOP_QUARTER = 0.75  # of the scale: from there on a pair counts as related
SIMCSE_SENTENCES = 1_536
SHARPENED = "base sharpened, p = 0.25"
WAYS = {  # and the numbers of pairs that each is given
    "base": (0,),
    SHARPENED: (0,),
    "SimCSE": (0,),
    "graded pairs": (30, 100, 300, 1_000),
    "CoSENTLoss": (100, 300),
    "CosineSimilarityLoss": (100, 300),
}
ORDER = "order"
DECISIONS = ("recall_at_precision[0.9]", "recall_at_fpr[0.05]", "recall_at_fpr[0.01]")


def read_corpora(path: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """The name and the pairs of each genre in a file, with `relatedness` in [0, 1], `family` and `split`."""
    if Path(path).is_file():
        pairs = pd.read_csv(path, keep_default_na=False)
    else:
        pairs = pd.concat([part.to_pandas() for part in load_dataset(path).values()], ignore_index=True)
    pairs["relatedness"] = (pairs["score"] - pairs["score"].min()) / np.ptp(pairs["score"])
    name = Path(path).stem.upper()
    if "genre" not in pairs:
        yield name, with_splits(pairs)
        return
    genres = pairs["genre"].replace({"main-forum": "forums", "main-forums": "forums"}).str.removeprefix("main-")
    for genre, of_genre in pairs.groupby(genres):
        yield f"{name} {genre}", with_splits(of_genre.reset_index(drop=True))


def with_splits(pairs: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Deal whole families of pairs to the splits, so that no sentence is in two of them."""
    number = pd.factorize(pd.concat([pairs["sentence1"], pairs["sentence2"]]))[0].reshape(2, -1)
    links = coo_array((np.ones(len(pairs)), number), shape=[number.max() + 1] * 2)
    families = connected_components(links, directed=False)[1]
    dealt = np.random.default_rng(seed).choice(list(SHARES), families.max() + 1, p=list(SHARES.values()))
    return pairs.assign(family=families[number[0]], split=dealt[families[number[0]]])


class Judged:
    """The cosines of an encoder on one corpus, and what they are worth."""

    def __init__(self, encode: Encode, pairs: pd.DataFrame):
        self.validation, self.test = (pairs[pairs["split"] == split] for split in ("validation", "test"))
        self.chosen_on, self.cosines = (cosines_of_pairs(encode, part) for part in (self.validation, self.test))
        sentences = pd.unique(pd.concat([self.test["sentence1"], self.test["sentence2"]]))
        self.width = pairwise_distribution(encode(list(sentences))).width

    def order_and_decisions(self, rows: slice | np.ndarray = slice(None)) -> dict[str, float]:
        grades, cosines = self.test["relatedness"].to_numpy()[rows], self.cosines[rows]
        related = self.validation["relatedness"].to_numpy() >= TOP_QUARTER
        found = recalls(self.chosen_on, related, cosines[grades >= TOP_QUARTER])
        return {ORDER: float(spearmanr(cosines, grades).statistic)} | found

    @cached_property
    def replicates(self) -> pd.DataFrame:
        """Order and decisions of resampled families, alike for every encoder on the corpus."""
        rows = resampled_rows(pd.factorize(self.test["family"])[0])
        return pd.DataFrame([self.order_and_decisions(drawn) for drawn in rows])

    def minus(self, base: "Judged") -> dict[str, list[float]]:
        """Differences of order and decisions, each with a 95 % interval from resampled families."""
        drawn = self.replicates - base.replicates
        own, of_base = self.order_and_decisions(), base.order_and_decisions()
        return {m: [own[m] - of_base[m], *drawn[m].quantile([0.025, 0.975])] for m in own}


def train(way: str, pairs: pd.DataFrame, draw: int) -> Encode:
    """The encoder that learns in this way from `pairs` of the train split; SimCSE from their sentences alone."""
    if way in OTHERS:
        return train_there(MODEL, pairs, way, draw)
    encoder = load_encoder(MODEL, max_length=MAX_LENGTH)
    if way == "SimCSE":
        sentences = pd.unique(pd.concat([pairs["sentence1"], pairs["sentence2"]]))
        sentences = np.random.default_rng(draw).permutation(sentences)[:SIMCSE_SENTENCES].tolist()
        fine_tune(encoder, sentences, TrainingSettings(objective="simcse", seed=draw))
    else:
        fine_tune(encoder, [], replace(OWN[way], seed=draw), pairs=pairs)
    return partial(encoder.encode, progress=False)


def grid(draws: Sequence[int]) -> list[tuple[str, int, int]]:
    runs = [(way, count) for way, counts in WAYS.items() for count in counts if count]
    untrained = [(way, 0, 0) for way, counts in WAYS.items() if counts == (0,)]
    return untrained + [(*run, draw) for draw in draws for run in runs]


def run(pairs: pd.DataFrame, base: Encode, judged_base: Judged, way: str, count: int, draw: int) -> dict:
    """The measures of one run on one corpus."""
    of_train, judged = pairs[pairs["split"] == "train"], judged_base
    if way == SHARPENED:
        some = of_train["sentence1"].unique()[:1_000].tolist()
        judged = Judged(with_transform(base, SpectralScaling(0.25), some), pairs)
    elif way != "base":
        judged = Judged(train(way, of_train.sample(count, random_state=draw) if count else of_train, draw), pairs)
    measures = judged.order_and_decisions() | {"width": judged.width}
    return {"measures": measures, "minus base": judged.minus(judged_base)}


def write_figure(lines: list[dict]) -> None:
    """Order and decisions against the number of pairs, a row a corpus."""
    shown = (ORDER, *DECISIONS, "width")
    finished = [line for line in lines if "measures" in line]
    by_corpus = pd.DataFrame(finished).groupby("corpus", sort=False)
    figure, axes = plt.subplots(len(by_corpus), len(shown), figsize=(13, 2.7 * len(by_corpus)), dpi=100, squeeze=False)
    numbers = {}
    for row, (corpus, of_corpus) in zip(axes, by_corpus):
        ways = numbers[corpus] = {way: {} for way in WAYS if way in set(of_corpus["way"])}
        for (way, count), runs in of_corpus.groupby(["way", "pairs"]):
            ways[way][count] = {m: mean_and_range([measures[m] for measures in runs["measures"]]) for m in shown}
            for m in (ORDER, *DECISIONS):
                ways[way][count][f"{m} minus base"] = np.mean([gains[m] for gains in runs["minus base"]], 0).tolist()
        for axis, measure in zip(row, shown):
            label_curves(axis, {way: {n: v[measure] for n, v in by_count.items()} for way, by_count in ways.items()})
        row[0].set_ylabel(corpus)
    for top, bottom, measure in zip(axes[0], axes[-1], shown):
        top.set_title(fill(plots.label_of(measure), 24), fontsize="medium")
        bottom.set_xlabel("graded pairs")
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="lower center", ncols=5, frameon=False)
    sizes = {line["corpus"]: line["sizes"] for line in lines}
    settings = {"model": MODEL, "pairs by split": sizes, "related from, share of the scale": TOP_QUARTER}
    settings["collapsed"] = [
        f"{line['corpus']}, {line['way']}, {line['pairs']}" for line in lines if "collapsed" in line
    ]
    settings |= {"draws": len({line["draw"] for line in lines}), "device": sorted({line["device"] for line in lines})}
    plots.save_figure(figure, FIGURES, "human_grades", settings, numbers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*")
    parser.add_argument("--draws", type=int, nargs="*", default=[0, 1, 2])
    options = parser.parse_args()
    for path in options.paths:
        for name, pairs in read_corpora(path):
            lines = [line for line in read_lines(RESULTS) if line["corpus"] == name]
            done = [(line["way"], line["pairs"], line["draw"]) for line in lines]
            enough = [job for job in grid(options.draws) if job[1] <= (pairs["split"] == "train").sum()]
            base = partial(load_encoder(MODEL, max_length=MAX_LENGTH, cache=CACHE).encode, progress=False)
            judged_base = Judged(base, pairs)
            for job in runs_to_do(enough, done=done):
                key = {"corpus": name, "way": job[0], "pairs": job[1], "draw": job[2], "model": MODEL}
                key |= {"sizes": pairs["split"].value_counts().to_dict()}
                append_run(RESULTS, key, partial(run, pairs, base, judged_base, *job))
    write_figure(read_lines(RESULTS))


if __name__ == "__main__":
    main()
