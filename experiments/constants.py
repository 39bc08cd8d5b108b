"""What each constant of the targets of topic and facts is worth, and more sentences: one varied at a time.

python -m experiments.constants [--seeds 0 1 2] [--part 1/2]

A JSON line a run in experiments/constants.jsonl; what is in the file is not done again, and `--part` shares the runs
between processes as in the study. When all are there, figures/constants.png and .json are drawn. A run takes two
minutes on two cores, seconds on a GPU. Everything is measured on the **validation** split, on which the constants were
once chosen.
"""

import argparse
from dataclasses import replace

import matplotlib.pyplot as plt

from experiments import PART_HELP, append_line, mean_and_range, read_lines, runs_to_do
from experiments.study import CHOSEN, MAX_LENGTH, MODEL, TRAINED_ON, ValidationData, draw_data
from src import plots
from src.encoder import load_encoder
from src.records import ROOT
from src.targets import topic_and_facts
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
SHARE = "train_sentences, one in 192 a neighbour"  # more sentences, with as many neighbours as are that share of them
SHOWN = ("width", "topic_order", "fact_order", "general_language")
Constants = dict[str, float | None]


def varied() -> dict[str, dict[float, Constants]]:
    """The constants of all runs: `varied()[name][value]` has one of them at another value than the one chosen."""
    values = {name: sorted({AS_CHOSEN[name], *tried}) for name, tried in TRIED.items()}
    runs = {name: {value: AS_CHOSEN | {name: value} for value in of_name} for name, of_name in values.items()}
    more = runs["train_sentences"]
    shares = {count: run if run == AS_CHOSEN else run | {"neighbours": None} for count, run in more.items()}
    return runs | {SHARE: shares}


def run(data: ValidationData, constants: Constants | None, seed: int) -> dict:
    """The line of one run; `constants` None stands for the base model."""
    encoder, training = data.base, []
    if constants:
        training, *_ = draw_data("validation", constants["train_sentences"], 1)
        of_targets = {name: value for name, value in constants.items() if name != "train_sentences"}
        targets = topic_and_facts(training, data.base.encode, CHOSEN.facts, seed, **of_targets)
        encoder = load_encoder(MODEL, max_length=MAX_LENGTH)
        fine_tune(encoder, training, replace(CHOSEN, seed=seed), targets=targets)
    line = {"constants": constants, "seed": seed, "sentences": len(training), "model": MODEL}
    return line | {"measured": data.measure(encoder)["as it is"], "sha256": data.base.sha256}


def draw_figure(lines: list[dict]) -> tuple[plt.Figure, dict]:
    """A column a constant, a row a measure; lines are means over seeds, points are seeds. Returns also the numbers."""
    shape = len(SHOWN), len(TRIED)
    figure, axes = plt.subplots(*shape, figsize=(13, 9), dpi=100, layout="constrained", sharey="row", sharex="col")
    (base,) = (line["measured"] for line in lines if line["constants"] is None)
    for measure, row in zip(SHOWN, axes):
        row[0].set(ylabel=measure.replace("_", " "))
        for axis in row:
            axis.axhline(base[measure], color="grey", linewidth=1, linestyle=":")
    numbers = {"base": {measure: base[measure] for measure in SHOWN}}
    for (name, runs), column in zip(varied().items(), [*axes.T, axes[:, -1]]):
        seeds = [[line for line in lines if line["constants"] == constants] for constants in runs.values()]
        if name != SHARE:
            values = [of_value[0]["sentences"] for of_value in seeds] if name == "train_sentences" else runs
            stars = [" *" * (constants == AS_CHOSEN) for constants in runs.values()]
            column[-1].set_xticks(range(len(runs)), [f"{value:,}{star}" for value, star in zip(values, stars)])
            column[-1].set(xlabel=name.replace("_", " "))
        numbers[name] = {}
        for measure, axis in zip(SHOWN, column):
            means = _draw_means(axis, [[line["measured"][measure] for line in of_value] for of_value in seeds], name)
            numbers[name][measure] = dict(zip(map(str, runs), means))
    axes[0, -1].legend(axes[0, -1].lines[-1:], ["neighbours: one in 192"], frameon=False)
    about = f"{MODEL}, topic and facts, one epoch, validation split: one constant varied at a time"
    figure.suptitle(f"{about} (*: as chosen; dots: seeds; dotted: base)", fontsize="medium")
    return figure, numbers


def _draw_means(axis: plt.Axes, measured: list[list[float]], name: str) -> list[float]:
    """Draw the seeds at each place of the axis, and a line through their means, which are returned."""
    style, colour = ("--", plots.COLOURS[1]) if name == SHARE else ("-", plots.COLOURS[0])
    for place, values in enumerate(measured):
        axis.plot([place] * len(values), values, ".", color=colour, alpha=0.5)
    means = [mean_and_range(values)[0] for values in measured]
    axis.plot(means, style, color=colour)
    return means


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--part", default="1/1", help=PART_HELP)
    options = parser.parse_args()
    each = [constants for runs in varied().values() for constants in runs.values()]
    grid = [(None, 0), *((constants, seed) for seed in options.seeds for constants in each)]
    missing = runs_to_do(grid, options.part, recorded())
    data = ValidationData() if missing else None
    for constants, seed in missing:
        append_line(RESULTS, line := run(data, constants, seed))
        print(constants, seed, {measure: round(line["measured"][measure], 3) for measure in SHOWN}, flush=True)
    if not runs_to_do(grid, done=recorded()):
        figure, numbers = draw_figure(read_lines(RESULTS))
        settings = AS_CHOSEN | {"seeds": sorted({seed for _, seed in recorded()}), "model": MODEL}
        plots.save_figure(figure, FIGURES, "constants", settings, numbers)


def recorded() -> list[tuple[Constants | None, int]]:
    return [(line["constants"], line["seed"]) for line in read_lines(RESULTS)]


if __name__ == "__main__":
    main()
