"""Every picture, from values already computed, and each saved beside a JSON of the settings and numbers in it."""

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from src.corpus import write_atomically
from src.similarity import PairwiseDistribution

COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)  # Okabe & Ito: colour-blind safe
SHOWN_BINS = 200  # of the distribution's 4,000, joined: 0.01 each, the same for everything compared


def save_figure(figure: Figure, folder: Path | str, name: str, settings: dict, numbers: dict) -> None:
    """Write name.png (100 dpi) and name.json with the settings that made it, library versions and its numbers."""
    versions = {package: version(package) for package in ("torch", "transformers", "numpy")}
    content = json.dumps({"settings": settings, "versions": versions, "numbers": numbers}, indent=1) + "\n"
    write_atomically(Path(folder) / f"{name}.png", lambda path: figure.savefig(path, dpi=100, format="png"))
    write_atomically(Path(folder) / f"{name}.json", lambda path: path.write_text(content))


def corpus_overview(counts: dict[str, dict[str, int]], lengths: Sequence[int], title: str) -> Figure:
    """Sentences by sport, stacked by split (`counts[split][sport]`), beside the lengths of the sentences in words."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 6), dpi=100, layout="constrained", gridspec_kw={"width_ratios": [3, 2]}
    )
    sports = sorted({sport for split in counts.values() for sport in split}, reverse=True)
    start = np.zeros(len(sports))
    for (split, by_sport), colour in zip(counts.items(), COLOURS):
        values = np.array([by_sport.get(sport, 0) for sport in sports])
        left.barh([sport.replace("_", " ") for sport in sports], values, left=start, color=colour, label=split)
        start += values
    left.set(xlabel="sentences")
    left.legend(loc="upper center", bbox_to_anchor=(0.5, 1.06), ncols=3, frameon=False)
    right.hist(lengths, bins=np.arange(min(lengths), max(lengths) + 2) - 0.5, color=COLOURS[0])
    right.set(xlabel="words in a sentence", ylabel="sentences")
    figure.suptitle(title)
    return figure


def stacked_histograms(distributions: dict[str, PairwiseDistribution], title: str) -> Figure:
    """One histogram above the other on shared bins and axes, each with mean, p5, p95 and width marked."""
    figure, axes = plt.subplots(
        len(distributions), 1, figsize=(9, 1 + 2.1 * len(distributions)), dpi=100, sharex=True, sharey=True,
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for axis, (label, distribution), colour in zip(axes.flat, distributions.items(), COLOURS):
        _draw_histogram(axis, distribution, colour, fill=True)
        low, high = distribution.quantile(0.05), distribution.quantile(0.95)
        axis.axvspan(low, high, color=colour, alpha=0.12, lw=0)
        axis.axvline(distribution.mean, color=colour, lw=1.5, ls="--")
        axis.text(
            0.985, 0.93,
            f"{label}\nmean {distribution.mean:.2f}   p5 {low:.2f}   p95 {high:.2f}\nwidth {distribution.width:.2f}",
            transform=axis.transAxes, ha="right", va="top",
        )  # fmt: skip
        axis.set(ylabel="density")
    _frame_cosines(axes.flat[-1], distributions)
    figure.suptitle(f"{title}\nshaded: p5 to p95, nine pairs in ten; dashed: mean", fontsize="medium")
    return figure


def overlaid_histograms(distributions: dict[str, PairwiseDistribution], title: str) -> Figure:
    """Outlines over each other on shared bins, with the width of each drawn as a bar from p5 to p95 below them."""
    figure, (axis, bars) = plt.subplots(
        2, 1, figsize=(9, 5), dpi=100, sharex=True, layout="constrained",
        gridspec_kw={"height_ratios": [6, 0.6 + 0.45 * len(distributions)]},
    )  # fmt: skip
    for row, ((label, distribution), colour) in enumerate(zip(distributions.items(), COLOURS)):
        _draw_histogram(axis, distribution, colour, fill=row == 0, label=label)
        low, high = distribution.quantile(0.05), distribution.quantile(0.95)
        bars.plot([low, high], [-row, -row], color=colour, lw=6, solid_capstyle="butt")
        bars.plot(distribution.mean, -row, marker="|", color="white", ms=9, mew=2)
        bars.text(high + 0.01, -row, f"width {distribution.width:.2f}", va="center", fontsize="small")
    axis.set(ylabel="density")
    axis.legend(frameon=False)
    bars.set(yticks=[], ylim=(-len(distributions) + 0.3, 0.7), ylabel="p5–p95")
    _frame_cosines(bars, distributions)
    figure.suptitle(title, fontsize="medium")
    return figure


def _draw_histogram(axis, distribution: PairwiseDistribution, colour: str, fill: bool, **options) -> None:
    counts = distribution.counts.reshape(SHOWN_BINS, -1).sum(1)
    density = counts / counts.sum() * SHOWN_BINS / 2
    edges = distribution.edges[:: len(distribution.counts) // SHOWN_BINS]
    axis.stairs(density, edges, color=colour, fill=fill, alpha=0.5 if fill else 1, lw=1.8, **options)


def _frame_cosines(axis, distributions: dict[str, PairwiseDistribution]) -> None:
    low = min(distribution.quantile(0.0005) for distribution in distributions.values())
    high = max(distribution.quantile(0.9995) for distribution in distributions.values())
    axis.set(xlim=(max(low - 0.05, -1), min(high + 0.12, 1)), xlabel="cosine similarity of a pair of sentences")


def loss_curves(losses: dict[str, Sequence[float]], steps_per_epoch: int, title: str) -> Figure:
    """InfoNCE loss of every step, a panel a run since the temperatures' scales differ, with its mean by epoch."""
    figure, axes = plt.subplots(1, len(losses), figsize=(9, 3), dpi=100, squeeze=False, layout="constrained")
    for axis, (label, values), colour in zip(axes.flat, losses.items(), COLOURS[1:]):
        steps = np.arange(1, len(values) + 1)
        axis.plot(steps / steps_per_epoch, values, color=colour, lw=1, alpha=0.7)
        for epoch in range(0, len(values), steps_per_epoch):
            mean = np.mean(values[epoch : epoch + steps_per_epoch])
            axis.plot([epoch / steps_per_epoch, epoch / steps_per_epoch + 1], [mean, mean], color="black", lw=1.5)
        axis.set(title=label, xlabel="epoch", ylabel="InfoNCE loss (nats)", ylim=(0, None))
    figure.suptitle(f"{title}; black: mean of the epoch", fontsize="medium")
    return figure


def by_epoch(panels: dict[str, dict[str, Sequence[float]]], title: str) -> Figure:
    """One panel a measure, one line a run: `panels[measure][run]` holds its values from epoch 0 (base) on."""
    figure, axes = plt.subplots(
        1, len(panels), figsize=(2.9 * len(panels) + 0.6, 3.3), dpi=100, squeeze=False, layout="constrained"
    )
    for axis, (measure, runs) in zip(axes.flat, panels.items()):
        for (run, values), colour, marker in zip(runs.items(), COLOURS[1:], "os^D"):
            axis.plot(range(len(values)), values, color=colour, marker=marker, label=run)
        axis.axhline(values[0], color="grey", lw=0.8, ls=":")
        axis.set(title=measure, xlabel="epoch", xticks=range(len(values)))
        axis.set_xticklabels(["base", *range(1, len(values))])
        axis.margins(y=0.2)
    axes.flat[0].legend(frameon=False, fontsize="small")
    figure.suptitle(title, fontsize="medium")
    return figure


def frontier(points: dict[str, dict[str, tuple[float, float, float]]], control: dict[str, float], title: str) -> Figure:
    """Order against width, a panel an order: `points[label][measure]` is value, low and high, also of "width".
    The first point is what the others started from; `control[measure]` is drawn as a line, for it has no width."""
    measures = [measure for measure in next(iter(points.values())) if measure != "width"]
    figure, axes = plt.subplots(1, len(measures), figsize=(10, 4.6), dpi=100, squeeze=False, layout="constrained")
    for axis, measure in zip(axes.flat, measures):
        for (label, values), marker in zip(points.items(), "osD^vP*X<>"):
            (width, *widths), (value, *orders) = values["width"], values[measure]
            spread = [[[abs(centre - end)] for end in ends] for centre, ends in ((width, widths), (value, orders))]
            colour = COLOURS[list(points).index(label) % len(COLOURS)]
            axis.errorbar(
                width, value, xerr=spread[0], yerr=spread[1], color=colour, marker=marker, lw=1, ls="", label=label
            )
        axis.axhline(control[measure], color="grey", ls="--", lw=1, label="word overlap, best of three")
        axis.axhline(next(iter(points.values()))[measure][0], color=COLOURS[0], lw=0.7, ls=":")
        axis.set(xlabel="width of all pairs (p95 − p5)", ylabel=f"{measure.replace('_', ' ')} (Spearman)")
    axes.flat[-1].legend(frameon=False, fontsize="small", loc="upper right")
    figure.suptitle(title, fontsize="medium")
    return figure
