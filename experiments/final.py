"""What was chosen on validation, judged on the test split: five seeds against the base, and against the base sharpened
to the same width.

python -m experiments.final [--model all-MiniLM-L6-v2] [--seeds 0 1 2 3 4] [--part 1/2]

What is trained and encoded is kept in runs/cache, so that a run that was broken off goes on. `--part 1/2` and `--part
2/2` share the seeds between two processes (`make final`); without a part, figures/final.json and .png are written (of
another model: final_MODEL). It takes about 40 minutes of one core; all-mpnet-base-v2 needs a GPU.
"""

import argparse
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize_scalar

from experiments import PART_HELP, runs_to_do
from experiments.study import CACHE, CHOSEN, FITTED_ON, MAX_LENGTH, MODEL, TRAINED_ON, draw_data
from src import plots
from src.corpus import general_language_pairs, load_pairs
from src.encoder import Encoder, load_encoder
from src.grammar import load_grammar
from src.records import ROOT
from src.scorecard import Scorecard, score, score_pairs
from src.similarity import Encode, cosines_of_pairs, pairwise_distribution
from src.training import fine_tune
from src.transforms import SpectralScaling, with_transform

LOOKED_AT, REPLICATES, FIGURES = 5_000, 200, ROOT / "figures"
SHOWN = (
    "width", "width_within", "topic_order", "fact_order", *(f"rung_auc[{k}]" for k in (1, 2, 3, 4)),
    "name_trap_auc", "wording_trap_auc", "adversarial_topic_order", "adversarial_fact_order",
)  # fmt: skip
Cards = dict[str, Scorecard]  # by what was looked at


class TestData:
    """Test sentences and pairs as in `fine_tune.ipynb`, those of sports not trained on, and pairs of other sources."""

    def __init__(self):
        self.training, self.corpus, self.pairs = draw_data("test", TRAINED_ON, LOOKED_AT)
        trained = {event.sport for event in load_grammar() if "train" in event.wordings}
        self.unseen_corpus = self.corpus[~self.corpus["sport"].isin(trained)].reset_index(drop=True)
        self.unseen_pairs = self.pairs[~self.pairs["template1"].str.split("/").str[0].isin(trained)]
        general, source = general_language_pairs()
        written = load_pairs(ROOT / "data" / "handwritten_pairs.csv")
        self.others = {source: general, "pairs that no template made": written}

    def cards(self, name: str, encode: Encode) -> Cards:
        options = {"replicates": REPLICATES}
        return {
            "test": score(name, encode, self.corpus, self.pairs, **options),
            "unseen sports": score(name, encode, self.unseen_corpus, self.unseen_pairs, resample="sport", **options),
        } | {
            source: score_pairs(name, cosines_of_pairs(encode, pairs), pairs, **options)
            for source, pairs in self.others.items()
        }


def mean_card(cards: list[Scorecard], name: str) -> Scorecard:
    """The mean over seeds; a replicate is the mean over as many seeds drawn anew, each on the same resampled events."""
    draws = np.random.default_rng(0).integers(0, len(cards), (REPLICATES, len(cards)))
    by_seed = np.array([card.replicates for card in cards])  # of shape (seeds, replicates, measures)
    drawn = by_seed[draws.T, np.arange(REPLICATES)].mean(0)
    replicates = pd.DataFrame(drawn, columns=cards[0].replicates.columns)
    values = pd.DataFrame([card.values for card in cards]).mean().to_dict()
    return Scorecard(name, values, replicates, cards[0].settings)


def sharpen(data: TestData, base: Encode, width: float) -> tuple[float, Encode]:
    """The power of spectral scaling that brings the base model to the given width, and how it encodes then."""

    def scaled(power: float) -> Encode:
        return with_transform(base, SpectralScaling(power), data.training[:FITTED_ON])

    def miss(power: float) -> float:
        embeddings = scaled(power)(data.corpus["sentence"].tolist())
        return abs(pairwise_distribution(embeddings).width - width)

    power = float(minimize_scalar(miss, bounds=(0, 2), method="bounded", options={"xatol": 0.002}).x)
    return power, scaled(power)


def compare_seeds(seeds: list[Cards], controls: dict[str, Cards]) -> tuple[Cards, dict]:
    """The mean cards of the seeds, and all numbers by what was looked at and measure."""
    name = f"{CHOSEN.objective}, {len(seeds)} seeds"
    tuned = {source: mean_card([cards[source] for cards in seeds], name) for source in seeds[0]}
    numbers = {}
    for source, card in tuned.items():
        of_seeds = [cards[source] for cards in seeds]
        of_controls = {control: cards[source] for control, cards in controls.items()}
        numbers[source] = {measure: _row(measure, of_seeds, card, of_controls) for measure in card.values}
    return tuned, numbers


def _row(measure: str, seeds: list[Scorecard], tuned: Scorecard, controls: Cards) -> dict[str, list | tuple]:
    """A measure in every seed; value, low and high of their mean, of the controls, and of the differences to them."""
    row = {"seeds": [card.values[measure] for card in seeds], "tuned": tuned.estimate(measure)}
    for name, card in controls.items():
        row[name] = card.estimate(measure)
        row[f"minus {name}"] = tuned.estimate(measure, minus=card)
    return row


def write_figure(data: TestData, base: Encoder, cards: dict[str | int, Cards]) -> None:
    """`cards` are those of "base" and of each seed."""
    seeds = [of_run for run, of_run in cards.items() if run != "base"]
    width = float(np.mean([of_seed["test"].values["width"] for of_seed in seeds]))
    power, at_equal_width = sharpen(data, base.encode, width)
    controls = {"base": cards["base"], "at equal width": data.cards(f"base, p = {power:.2f}", at_equal_width)}
    tuned, numbers = compare_seeds(seeds, controls)
    shown = [*(of_control["test"] for of_control in controls.values()), tuned["test"]]
    looked_at = f"{len(data.corpus):,} sentences, {len(data.pairs):,} graded pairs, {len(seeds)} seeds"
    figure = plots.differences(shown, f"{base.name}, test split, {looked_at}", SHOWN)
    settings = asdict(CHOSEN) | {"model": base.name, "train_sentences": TRAINED_ON, "power at equal width": power}
    settings["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    name = "final" if base.name == MODEL else f"final_{base.name}"
    plots.save_figure(figure, FIGURES, name, settings, numbers)
    rows = {m: {column: row[column][0] for column in row if column != "seeds"} for m, row in numbers["test"].items()}
    print(pd.DataFrame(rows).T)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--part", default="1/1", help=PART_HELP)
    options = parser.parse_args()
    data, cards = TestData(), {}
    for run in runs_to_do(["base", *options.seeds], options.part):
        encoder = load_encoder(options.model, max_length=MAX_LENGTH, cache=CACHE)
        if run != "base":
            fine_tune(encoder, data.training, replace(CHOSEN, seed=run))
        cards[run] = data.cards(str(run), encoder.encode)
    if options.part.endswith("/1"):
        write_figure(data, load_encoder(options.model, max_length=MAX_LENGTH, cache=CACHE), cards)


if __name__ == "__main__":
    main()
