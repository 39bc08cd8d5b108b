"""What each constant of the own objective's targets is worth, and more sentences: one varied at a time, on validation.

python -m experiments.constants [--seeds 0 1 2] [--part 1/2]

A JSON line a run in experiments/constants.jsonl; what is in the file is not done again, and `--part` shares the runs
between processes as in the study. When all are there, figures/constants.png and .json are drawn. Two minutes a run on
two cores, seconds on a GPU. All is measured on the **validation** split, on which the constants were once chosen.
"""

import argparse
from dataclasses import replace

import matplotlib

matplotlib.use("Agg")  # no window

import matplotlib.pyplot as plt
import numpy as np

from experiments.study import CHOSEN, MAX_LENGTH, MODEL, TRAINED_ON, Truth, append, read
from run_notebooks import ROOT
from src import plots
from src.corpus import draw_sentences
from src.encoder import load_encoder
from src.losses import take_apart
from src.training import fine_tune

RESULTS, FIGURES = ROOT / "experiments" / "constants.jsonl", ROOT / "figures"
AS_CHOSEN = {"copies": 4, "word_weight": 0.7, "neighbours": 16, "facts_power": -0.25, "train_sentences": TRAINED_ON}
TRIED = {
    "copies": (1, 2, 8),
    "word_weight": (0, 0.35, 1.4),
    "neighbours": (0, 4, 64),
    "facts_power": (0, -0.125, -0.5),
    "train_sentences": (1_024, 6_144, 100_000),  # the last: all there are
}
SHOWN = ("width", "topic_order", "fact_order", "general_language")


def run(truth: Truth, constants: dict[str, float] | None, seed: int) -> dict:
    """`constants`: None for the base model."""
    training, measures = [], truth.of_base
    if constants:
        training = draw_sentences(truth.whole, constants["train_sentences"], np.random.default_rng(0))
        of_targets = {name: value for name, value in constants.items() if name != "train_sentences"}
        encoder = load_encoder(MODEL, max_length=MAX_LENGTH)
        parts = take_apart(training, encoder.encode, seed=seed, **of_targets)
        fine_tune(encoder, training, replace(CHOSEN, seed=seed), parts=parts)
        measures = truth.measure(encoder)
    line = {"constants": constants, "seed": seed, "sentences": len(training), "measured": measures["as it is"]}
    return line | {"sha256": truth.sha256}


def draw_figure(lines: list[dict]) -> tuple[plt.Figure, dict]:
    """A column a constant, a row a measure; the line is the mean of the seeds, and these are the points."""
    (of_base,) = (line["measured"] for line in lines if line["constants"] is None)
    figure, axes = plt.subplots(
        len(SHOWN), len(TRIED), figsize=(13, 9), dpi=100, layout="constrained", sharey="row", sharex="col"
    )
    numbers = {"base": {measure: of_base[measure] for measure in SHOWN}}
    for name, column in zip(TRIED, axes.T):
        values = sorted({AS_CHOSEN[name], *TRIED[name]})
        ways = {name: [AS_CHOSEN | {name: value} for value in values]}
        if name == "train_sentences":  # the last of the columns, and so where the legend is
            ways["train_sentences, one in 192 a neighbour"] = [
                way if way == AS_CHOSEN else way | {"neighbours": None} for way in ways[name]
            ]
        for (label, way), style, colour in zip(ways.items(), ("-", "--"), plots.COLOURS):
            found = [[line for line in lines if line["constants"] == constants] for constants in way]
            for measure, axis in zip(SHOWN, column):
                measured = [[line["measured"][measure] for line in at] for at in found]
                means = [float(np.mean(at)) for at in measured]
                axis.axhline(of_base[measure], color="grey", linewidth=1, linestyle=":")
                for place, at in enumerate(measured):
                    axis.plot([place] * len(at), at, ".", color=colour, alpha=0.5)
                axis.plot(means, style, color=colour)
                numbers.setdefault(label, {})[measure] = dict(zip(map(str, values), means))
        shown = [found[k][0]["sentences"] if name == "train_sentences" else v for k, v in enumerate(values)]
        stars = [" *" * (value == AS_CHOSEN[name]) for value in values]
        column[-1].set_xticks(range(len(values)), [f"{v:,}{star}" for v, star in zip(shown, stars)])
        column[-1].set(xlabel=name.replace("_", " "))
    axes[0, -1].legend(axes[0, -1].lines[-1:], ["neighbours: one in 192"], frameon=False)
    for measure, axis in zip(SHOWN, axes[:, 0]):
        axis.set(ylabel=measure.replace("_", " "))
    figure.suptitle(
        f"{MODEL}, topic and facts, one epoch, validation split: one constant varied at a time (*: as chosen; dots: "
        "seeds; dotted: base)",
        fontsize="medium",
    )
    return figure, numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--part", default="1/1", help="which of how many processes this is")
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    each = [AS_CHOSEN] + [AS_CHOSEN | {name: value} for name, values in TRIED.items() for value in values]
    # as many neighbours as are one in 192 of the sentences
    each += [AS_CHOSEN | {"neighbours": None, "train_sentences": count} for count in TRIED["train_sentences"]]
    grid = [(None, 0), *((constants, seed) for seed in options.seeds for constants in each)]
    truth = None
    for constants, seed in grid[part - 1 :: parts]:
        if (constants, seed) not in done():
            truth = truth or Truth()
            append(RESULTS, line := run(truth, constants, seed))
            print(constants, seed, {measure: round(line["measured"][measure], 3) for measure in SHOWN}, flush=True)
    if all(wanted in done() for wanted in grid):
        figure, numbers = draw_figure(read(RESULTS))
        seeds = sorted({seed for _, seed in done()})
        plots.save_figure(figure, FIGURES, "constants", AS_CHOSEN | {"seeds": seeds, "model": MODEL}, numbers)


def done() -> list[tuple[dict[str, float] | None, int]]:
    return [(line["constants"], line["seed"]) for line in read(RESULTS)]


if __name__ == "__main__":
    main()
