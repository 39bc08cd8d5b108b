"""What was chosen on validation, judged on the test split: five seeds against the base, and against the base sharpened
to the same width.

python -m experiments.final [--model all-MiniLM-L6-v2] [--seeds 0 1 2 3 4] [--part 1/2]

What is trained and encoded is kept in runs/cache, so that a run that was broken off goes on. `--part 1/2` and `--part
2/2` share the seeds between two processes (`make final`); without a part, figures/final.json and .png are written (of
another model: final_MODEL). About 35 minutes of one core; all-mpnet-base-v2 wants a GPU.
"""

import argparse
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize_scalar

from experiments.study import CHOSEN, FITTED_ON, MAX_LENGTH, MODEL, TRAINED_ON, draw
from run_notebooks import ROOT
from src import plots
from src.corpus import load_pairs
from src.encoder import load_encoder
from src.postprocessing import SpectralScaling
from src.scorecard import Scorecard, general_language_pairs, lookup, score, score_pairs
from src.sentences import load_grammar
from src.similarity import paired_cosines, pairwise_distribution
from src.training import fine_tune

LOOKED_AT, REPLICATES = 5_000, 200
FIGURES, CACHE = ROOT / "figures", ROOT / "runs" / "cache"
SHOWN = (
    "width", "width_within", "topic_order", "fact_order", *(f"rung_auc[{k}]" for k in (1, 2, 3, 4)),
    "name_trap_auc", "wording_trap_auc", "adversarial_topic_order", "adversarial_fact_order",
)  # fmt: skip


class Test:
    """The same draw of test sentences as in `fine_tune.ipynb` with seed 0; all test pairs; those of unseen sports."""

    def __init__(self):
        self.training, self.corpus, self.pairs = draw("test", TRAINED_ON, LOOKED_AT)
        general, name = general_language_pairs()
        written = load_pairs(ROOT / "data" / "handwritten_pairs.csv").to_pandas()
        self.others = {name: general, "pairs that no template made": written}  # judged by their order alone
        trained = {event.sport for event in load_grammar() if "train" in event.wordings}
        self.unseen = np.flatnonzero([sport not in trained for sport in self.corpus["sport"]])
        self.pairs_of_unseen = self.pairs[~self.pairs["template1"].str.split("/").str[0].isin(trained)]
        self.sentences = self.corpus["sentence"][:] + self.training[:FITTED_ON]
        for pairs in (self.pairs, *self.others.values()):
            self.sentences += [*pairs["sentence1"], *pairs["sentence2"]]

    def fitted_on(self, embeddings: np.ndarray) -> np.ndarray:
        return embeddings[len(self.corpus) :][:FITTED_ON]

    def cards(self, name: str, embeddings: np.ndarray) -> dict[str, Scorecard]:
        of, unseen = lookup(self.sentences, embeddings), self.corpus.select(self.unseen)
        others = {}
        for part, pairs in self.others.items():
            cosines = paired_cosines(*(of(pairs[side].tolist()) for side in ("sentence1", "sentence2")))
            others[part] = score_pairs(cosines, pairs, name, replicates=REPLICATES)
        return {
            "test": score(of, self.corpus, self.pairs, name, replicates=REPLICATES),
            "unseen sports": score(of, unseen, self.pairs_of_unseen, name, resample="sport", replicates=REPLICATES),
            **others,
        }


def mean_card(cards: list[Scorecard], name: str) -> Scorecard:
    """The mean over seeds; a replicate is the mean over as many seeds drawn anew, each on the same resampled events."""
    draws = np.random.default_rng(0).integers(0, len(cards), (REPLICATES, len(cards)))
    replicates = {
        measure: np.array([card.replicates[measure] for card in cards])[draws.T, np.arange(REPLICATES)].mean(0).tolist()
        for measure in cards[0].replicates
    }
    values = {measure: float(np.mean([card.values[measure] for card in cards])) for measure in cards[0].values}
    return Scorecard(name, values, replicates, cards[0].settings)


def sharpened(test: Test, base: np.ndarray, width: float) -> tuple[float, np.ndarray]:
    """The power of spectral scaling that brings the base model to the given width, and its embeddings then."""

    def scale(power: float) -> np.ndarray:
        return SpectralScaling(power).fit(test.fitted_on(base)).transform(base)

    def miss(power: float) -> float:
        return abs(pairwise_distribution(scale(power)[: len(test.corpus)]).width - width)

    power = float(minimize_scalar(miss, bounds=(0, 2), method="bounded", options={"xatol": 0.002}).x)
    return power, scale(power)


def combine(test: Test, base: np.ndarray, seeds: list[np.ndarray], model: str, name: str) -> None:
    by_seed = [test.cards("seed", embeddings) for embeddings in seeds]
    name_of_mean = f"{CHOSEN.objective}, {len(seeds)} seeds"
    tuned = {part: mean_card([cards[part] for cards in by_seed], name_of_mean) for part in by_seed[0]}
    power, at_equal_width = sharpened(test, base, tuned["test"].values["width"])
    controls = {
        "base": test.cards("base", base),
        "at equal width": test.cards(f"base, p = {power:.2f}", at_equal_width),
    }
    numbers = {}
    for part, card in tuned.items():
        of_seeds = [cards[part] for cards in by_seed]
        of_controls = {control: cards[part] for control, cards in controls.items()}
        numbers[part] = {measure: _row(measure, of_seeds, card, of_controls) for measure in card.values}
    shown = [controls["base"]["test"], controls["at equal width"]["test"], tuned["test"]]
    about = f"{model}, test split, {len(test.corpus):,} sentences, {len(test.pairs):,} graded pairs, {len(seeds)} seeds"
    settings = asdict(CHOSEN) | {"model": model, "train_sentences": TRAINED_ON, "power at equal width": power}
    settings["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    plots.save_figure(plots.differences(shown, about, SHOWN), FIGURES, name, settings, numbers)
    print(pd.DataFrame({m: {k: v[0] for k, v in of.items() if k != "seeds"} for m, of in numbers["test"].items()}).T)


def _row(
    measure: str, seeds: list[Scorecard], tuned: Scorecard, controls: dict[str, Scorecard]
) -> dict[str, list[float]]:
    """A measure in every seed; value, low and high of their mean, of the controls, and of the differences to them."""
    value = tuned.values[measure]
    row = {"seeds": [card.values[measure] for card in seeds], "tuned": [value, *tuned.interval(measure)]}
    for name, card in controls.items():
        row[name] = [card.values[measure], *card.interval(measure)]
        row[f"minus {name}"] = [value - card.values[measure], *tuned.interval(measure, card)]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--part", default="1/1", help="which of how many processes this is")
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    test, embeddings = Test(), []
    for seed in ["base", *options.seeds][part - 1 :: parts]:
        encoder = load_encoder(options.model, max_length=MAX_LENGTH, cache=CACHE)
        if seed != "base":
            fine_tune(encoder, test.training, replace(CHOSEN, seed=seed))
        embeddings.append(encoder.encode(test.sentences))
    if parts == 1:
        name = "final" if options.model == MODEL else f"final_{encoder.name}"
        combine(test, embeddings[0], embeddings[1:], encoder.name, name)


if __name__ == "__main__":
    main()
