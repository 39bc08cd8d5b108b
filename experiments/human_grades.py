"""What graded pairs buy where people wrote the sentences and graded the pairs: SICK, and the genres of STS-B.

python -m experiments.human_grades PATH [PATH ...] [--counts 30 100 300 1000] [--draws 0 1 2]

PATH is a CSV with the columns sentence1, sentence2, score, and genre where there are several; or a dataset of the hub
with the same columns, such as mteb/sickr-sts. The splits of these files share sentences (three in four of SICK's test
sentences). So pairs that are linked by a sentence form a family, and whole families are dealt to train, validation and
test. A JSON line a run in experiments/human_grades.jsonl, a minute of two cores; what is in the file is not done
again. Then figures/human_grades.json and .png are drawn. No sentence is kept.
"""

import argparse
from collections.abc import Iterator
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

from experiments import CACHE, FIGURES, MAX_LENGTH, MODEL, append_line, mean_and_range, read_lines
from experiments.labels import OWN, train_there
from src import plots
from src.bootstrap import resampled_rows
from src.corpus import load_sentences
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


def train(way: str, pairs: pd.DataFrame, draw: int, rehearsal: list[str]) -> Encode:
    """The encoder that learns in this way from `pairs` of the train split; SimCSE from their sentences alone."""
    if way == "CoSENTLoss":
        return train_there(MODEL, pairs, way, draw)
    encoder = load_encoder(MODEL, max_length=MAX_LENGTH)
    if way == "SimCSE":
        sentences = pd.unique(pd.concat([pairs["sentence1"], pairs["sentence2"]]))
        sentences = np.random.default_rng(draw).permutation(sentences)[:SIMCSE_SENTENCES].tolist()
        fine_tune(encoder, sentences, TrainingSettings(objective="simcse", seed=draw))
    else:
        fine_tune(encoder, [], replace(OWN[way], seed=draw), pairs=pairs, rehearsal=rehearsal)
    return partial(encoder.encode, progress=False)


def run_corpus(name: str, pairs: pd.DataFrame, counts: list[int], draws: list[int]) -> None:
    """Every run on one corpus that is not in the file yet."""
    done = [(line["way"], line["pairs"], line["draw"]) for line in read_lines(RESULTS) if line["corpus"] == name]
    ways = [("base", 0), ("base sharpened, p = 0.25", 0), ("SimCSE", 0)]
    runs = [(*way, 0) for way in ways]
    runs += [("graded pairs", count, draw) for draw in draws for count in counts]
    runs += [("CoSENTLoss", count, draw) for draw in draws for count in counts if count in (100, 300)]
    rehearsal = load_sentences(ROOT / "data" / "everyday_sentences.txt")["sentence"].tolist()
    base = partial(load_encoder(MODEL, max_length=MAX_LENGTH, cache=CACHE).encode, progress=False)
    of_train = pairs[pairs["split"] == "train"]
    judged_base = Judged(base, pairs)
    for way, count, draw in runs:
        if (way, count, draw) in done or count > len(of_train):
            continue
        if way == "base":
            judged = judged_base
        elif way.startswith("base sharpened"):
            some = of_train["sentence1"].unique().tolist()[:1_000]
            judged = Judged(with_transform(base, SpectralScaling(0.25), some), pairs)
        else:
            learned = of_train.sample(count, random_state=draw) if count else of_train
            judged = Judged(train(way, learned, draw, rehearsal), pairs)
        line = {"corpus": name, "way": way, "pairs": count, "draw": draw}
        line |= {"sizes": pairs["split"].value_counts().to_dict(), "model": MODEL}
        line |= {"measures": judged.order_and_decisions() | {"width": judged.width}}
        append_line(RESULTS, line | {"minus base": judged.minus(judged_base)})
        print(name, way, count, draw, {m: round(value, 3) for m, value in line["measures"].items()}, flush=True)


def write_figure(lines: list[dict]) -> None:
    """Order and decisions against the number of pairs, a row a corpus."""
    corpora, shown = list(dict.fromkeys(line["corpus"] for line in lines)), (ORDER, *DECISIONS, "width")
    figure, axes = plt.subplots(len(corpora), len(shown), figsize=(13, 2.7 * len(corpora)), dpi=100, squeeze=False)
    numbers = {corpus: {} for corpus in corpora}
    counts = sorted({line["pairs"] for line in lines if line["pairs"]})
    for line in lines:
        numbers[line["corpus"]].setdefault(line["way"], {}).setdefault(line["pairs"], []).append(line)
    for row, corpus in zip(axes, corpora):
        for axis, measure in zip(row, shown):
            for way, colour, marker in zip(numbers[corpus], ["grey", *plots.COLOURS], ["", *plots.MARKERS]):
                by_count = numbers[corpus][way]
                estimates = [mean_and_range([line["measures"][measure] for line in by_count[n]]) for n in by_count]
                if list(by_count) == [0]:  # learns from no pairs: a level
                    axis.axhline(estimates[0][0], color=colour, ls=":", label=way)
                    continue
                middle, low, high = np.array(estimates).T
                axis.fill_between(list(by_count), low, high, color=colour, alpha=0.15, lw=0)
                axis.plot(list(by_count), middle, color=colour, marker=marker, label=way)
            axis.set(xscale="log", ylabel=corpus if axis is row[0] else "")
            axis.set_xticks(counts, counts)
            axis.minorticks_off()
            if corpus == corpora[0]:
                axis.set_title(fill(plots.label_of(measure), 24), fontsize="medium")
            if corpus == corpora[-1]:
                axis.set_xlabel("graded pairs")
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="lower center", ncols=5, frameon=False)
    sizes = {line["corpus"]: line["sizes"] for line in lines}
    settings = {"model": MODEL, "pairs by split": sizes, "related from, share of the scale": TOP_QUARTER}
    for ways in numbers.values():
        for by_count in ways.values():
            for count, of_draws in by_count.items():
                by_count[count] = {m: mean_and_range([line["measures"][m] for line in of_draws]) for m in shown} | {
                    f"{m} minus base": np.mean([line["minus base"][m] for line in of_draws], 0).tolist()
                    for m in (ORDER, *DECISIONS)
                }
    plots.save_figure(figure, FIGURES, "human_grades", settings, numbers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*")
    parser.add_argument("--counts", type=int, nargs="+", default=[30, 100, 300, 1_000])
    parser.add_argument("--draws", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    for path in options.paths:
        for name, pairs in read_corpora(path):
            run_corpus(name, pairs, options.counts, options.draws)
    write_figure(read_lines(RESULTS))


if __name__ == "__main__":
    main()
