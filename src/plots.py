"""Every picture, from values already computed, and each saved beside a JSON of the settings and numbers in it."""

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve

from src.corpus import library_versions, write_atomically
from src.quality import rung_auc, rung_d_prime
from src.scorecard import MAIN, Scorecard
from src.similarity import PairwiseDistribution

COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#882255",
)  # Okabe & Ito, and Tol's wine: colour-blind safe
MARKERS = "osD^vP*X<>"
GRADES = {0: "other sport", 1: "same sport", 2: "same event", 3: "one fact differs", 4: "same facts"}
SHOWN_BINS = 200  # of the distribution's 4,000, joined: 0.01 each, the same for everything compared


def save_figure(figure: Figure, folder: Path | str, name: str, settings: dict, numbers: dict) -> None:
    """Write name.png (100 dpi) and name.json with the settings that made it, library versions and its numbers."""
    content = json.dumps({"settings": settings, "versions": library_versions(), "numbers": numbers}, indent=1) + "\n"
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
    """Loss of every step, a panel a run since their scales differ, with its mean by epoch."""
    figure, axes = plt.subplots(1, len(losses), figsize=(9, 3), dpi=100, squeeze=False, layout="constrained")
    for axis, (label, values), colour in zip(axes.flat, losses.items(), COLOURS[1:]):
        steps = np.arange(1, len(values) + 1)
        axis.plot(steps / steps_per_epoch, values, color=colour, lw=1, alpha=0.7)
        for epoch in range(0, len(values), steps_per_epoch):
            mean = np.mean(values[epoch : epoch + steps_per_epoch])
            axis.plot([epoch / steps_per_epoch, epoch / steps_per_epoch + 1], [mean, mean], color="black", lw=1.5)
        axis.set(title=label, xlabel="epoch", ylabel="loss", ylim=(0, None))
    figure.suptitle(f"{title}; black: mean of the epoch", fontsize="medium")
    return figure


def by_epoch(panels: dict[str, dict[str, Sequence]], title: str) -> Figure:
    """One panel a measure, one line a run: `panels[measure][run]` holds its values from epoch 0 (base) on, of shape
    (epochs + 1,), or (seeds, epochs + 1) for the mean and, shaded, lowest to highest."""
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.9 * columns + 0.6, 3 * rows + 0.3), dpi=100, squeeze=False, layout="constrained"
    )
    for axis, (measure, runs) in zip(axes.flat, panels.items()):
        for (run, values), colour, marker in zip(runs.items(), COLOURS[1:], MARKERS[1:]):
            values = np.atleast_2d(values)
            epochs = np.arange(values.shape[1])
            axis.fill_between(epochs, values.min(0), values.max(0), color=colour, alpha=0.2, lw=0)
            axis.plot(epochs, values.mean(0), color=colour, marker=marker, label=run)
        axis.axhline(values[0, 0], color="grey", lw=0.8, ls=":")
        axis.set(title=measure.replace("_", " "), xlabel="epoch", xticks=epochs)
        axis.set_xticklabels(["base", *epochs[1:]])
        axis.margins(y=0.2)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, columns), frameon=False, fontsize="small")
    figure.suptitle(title, fontsize="medium")
    return figure


def frontier(
    families: dict[str, dict[str, dict[str, tuple[float, float, float]]]], control: dict[str, float], title: str
) -> Figure:
    """Orders against widths, a column an order, a row a width, and a line a family of points:
    `families[model][transform][measure]` is value, low and high, of measures whose name begins with "width", of which
    the value is drawn, and of orders; `control[measure]` is drawn as a line, for it has no width. A model is better
    than another where its line is above the other's at the same width."""
    first = next(iter(next(iter(families.values())).values()))
    widths = [measure for measure in first if measure.startswith("width")]
    orders = [measure for measure in first if measure not in widths]
    figure, axes = plt.subplots(
        len(widths), len(orders), figsize=(10, 1 + 4 * len(widths)), dpi=100, sharey="col", squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis, (width, order) in zip(axes.flat, product(widths, orders)):
        named: list[set[str]] = []
        for (label, points), colour, marker in zip(families.items(), COLOURS, MARKERS):
            x = [point[width][0] for point in points.values()]
            values, lows, highs = np.array([point[order] for point in points.values()]).T
            axis.plot(x, values, color=colour, marker=marker, label=label)
            axis.fill_between(x, lows, highs, color=colour, alpha=0.12, lw=0)
            if len(x) == 1:  # too narrow to be shaded
                axis.vlines(x, lows, highs, color=colour, lw=1)
            for name, *place in zip(points, x, values) if len(x) > 1 and set(points) not in named else ():  # once
                axis.annotate(name, place, (0, 6), textcoords="offset points", ha="center", fontsize=7)
            named.append(set(points))
        if order in control:
            axis.axhline(control[order], color="grey", ls="--", lw=1, label="word overlap, best of three")
        where = "of all pairs" if width == "width" else "within a sport"
        axis.set(xlabel=f"width {where} (p95 − p5)", ylabel=f"{order.replace('_', ' ')} (Spearman)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    columns = 4 if max(map(len, labels)) < 40 else 2
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize="small")
    figure.suptitle(title, fontsize="medium")
    return figure


def ridgeline(
    panels: dict[str, tuple[Float[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]],
    title: str,
    xlabel: str = "cosine similarity of a pair of sentences",
) -> Figure:
    """Where the cosines of each grade lie: `panels[label]` holds cosines and grades, a panel each, on shared axes.

    The ridges of a panel have the same area, and all are smoothed alike, by a Gaussian whose deviation is 1.5 % of the
    range shown. Between two of them: how well the higher grade is told from the lower one.
    """
    figure, axes = plt.subplots(
        1, len(panels), figsize=(10, 5), dpi=100, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    everything = np.concatenate([cosines for cosines, _ in panels.values()])
    margin = 0.05 * np.ptp(everything)
    grid = np.linspace(everything.min() - margin, everything.max() + margin, 400)
    ridges = {
        label: {int(grade): _density(cosines[grades == grade], grid) for grade in np.unique(grades)}
        for label, (cosines, grades) in panels.items()
    }
    for axis, (label, (cosines, grades)) in zip(axes.flat, panels.items()):
        tallest = max(density.max() for density in ridges[label].values())
        for grade, density in ridges[label].items():
            height = 0.75 * density / tallest  # below what is written above it
            colour, of_grade = COLOURS[grade % len(COLOURS)], cosines[grades == grade]
            axis.fill_between(grid, grade, grade + height, color=colour, alpha=0.6, lw=0)
            axis.plot(grid, grade + height, color=colour, lw=1)
            low, median, high = np.quantile(of_grade, [0.05, 0.5, 0.95])
            axis.plot([low, high], [grade, grade], color=colour, lw=3, solid_capstyle="butt")
            axis.plot([median, median], [grade, grade + np.interp(median, grid, height)], color="black", lw=1.5)
            told = _told_apart(cosines, grades, grade) if grade - 1 in ridges[label] else ""
            axis.annotate(told, (0.99, grade - 0.2), xycoords=("axes fraction", "data"), ha="right", fontsize=8)
        axis.set(title=label, xlabel=xlabel, xlim=(grid[0], grid[-1]))
    grades = sorted({grade for of_grades in ridges.values() for grade in of_grades})
    axes.flat[0].set_yticks(grades, [f"{grade} {GRADES.get(grade, '')}" for grade in grades])
    figure.suptitle(
        f"{title}\nline: median; bar: p5 to p95; on the right: this grade above the one below it", fontsize="medium"
    )
    return figure


def _told_apart(cosines: Float[np.ndarray, " pairs"], grades: Int[np.ndarray, " pairs"], grade: int) -> str:
    try:
        return f"AUC {rung_auc(cosines, grades, grade):.2f}, d′ {rung_d_prime(cosines, grades, grade):.2f}"
    except ValueError:  # one pair of a grade, or all equal
        return ""


def _density(values: Float[np.ndarray, " n"], grid: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
    deviation = 0.015 * (grid[-1] - grid[0])
    return np.exp(-(((grid[:, None] - values) / deviation) ** 2) / 2).mean(1) / (deviation * np.sqrt(2 * np.pi))


def differences(cards: Sequence[Scorecard], title: str, measures: Sequence[str] = MAIN) -> Figure:
    """The figure of `scorecard.compare`: a panel a measure, with each card's difference to the first card and the 95 %
    interval of that paired difference; filled where it excludes 0."""
    measures = [m for m in measures if all(m in card.replicates for card in cards)]
    columns = min(4, len(measures))
    rows = -(-len(measures) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(10, 1.2 + rows * (0.5 + 0.22 * len(cards))), dpi=100, sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis, measure in zip(axes.flat, measures):
        axis.axvline(0, color=COLOURS[0], lw=1)
        for row, (card, colour, marker) in enumerate(zip(cards[1:], COLOURS[1:] * 2, MARKERS[1:] * 2)):
            difference = card.values[measure] - cards[0].values[measure]
            low, high = card.interval(measure, against=cards[0])
            axis.plot([low, high], [row, row], color=colour, lw=1.5)
            filled = colour if low > 0 or high < 0 else "white"
            axis.plot(difference, row, marker=marker, ls="", color=colour, mfc=filled)
        axis.set_title(f"{measure.replace('_', ' ')} ({cards[0].values[measure]:.2f})", fontsize="small")
        axis.set_yticks(range(len(cards) - 1), [card.name for card in cards[1:]])
        axis.tick_params(labelsize="small")
        axis.locator_params(axis="x", nbins=4)
    for axis in axes.flat[len(measures) :]:
        axis.remove()
    axes.flat[0].set_ylim(len(cards) - 1.5, -0.5)  # the first on top, and none on the frame
    figure.suptitle(
        f"{title}\ndifference to {cards[0].name} (its value in brackets), 95 % interval; filled: it excludes 0",
        fontsize="medium",
    )
    return figure


def range_and_dimension(points: dict[str, dict[str, float]], title: str) -> Figure:
    """mean^2 + std^2 of all cosines against sum p_k^2, which are equal but for the diagonal; and width against the
    effective dimension 1 / sum p_k^2. `points[label]` holds mean, std, width, participation; hollow where the mean
    cosine is 0.1 or more, so that much of mean^2 + std^2 is offset and not range."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6), dpi=100, layout="constrained")
    for number, (label, point) in enumerate(points.items()):
        colour = COLOURS[number % len(COLOURS)]
        style = {"color": colour, "marker": MARKERS[number % len(MARKERS)], "ls": "", "ms": 8}
        style["mfc"] = colour if point["mean"] < 0.1 else "white"
        left.plot(point["participation"], point["mean"] ** 2 + point["std"] ** 2, label=label, **style)
        right.plot(1 / point["participation"], point["width"], **style)
    left.axline((1e-2, 1e-2), (1e-1, 1e-1), color="grey", lw=0.8, ls=":")
    left.set(xscale="log", yscale="log", xlabel="Σ p² of the spectrum", ylabel="mean² + std² of the cosines")
    right.set(xscale="log", xlabel="effective dimension, 1 / Σ p²", ylabel="width of all pairs (p95 − p5)")
    left.legend(frameon=False, fontsize="small")
    figure.suptitle(f"{title}; hollow: mean cosine of 0.1 or more", fontsize="medium")
    return figure


def spectra(
    spectra: dict[str, Float[np.ndarray, " dim"]],
    d_primes: dict[str, dict[int, tuple[float, float, float]]],
    title: str,
) -> Figure:
    """Share of the embeddings' squared length in each direction, beside the separation that comes with it:
    `d_primes[label][k]` is d' of grade k above k - 1, with low and high; without any, the spectra alone."""
    figure, axes = plt.subplots(1, 2 if d_primes else 1, figsize=(10, 4), dpi=100, squeeze=False, layout="constrained")
    left = axes[0, 0]
    for number, ((label, shares), colour, marker) in enumerate(zip(spectra.items(), COLOURS, MARKERS)):
        doubling = [2**k - 1 for k in range(len(shares).bit_length())]
        left.plot(np.arange(1, len(shares) + 1), shares, label=label, color=colour, marker=marker, markevery=doubling)
        if label in d_primes:
            values, lows, highs = np.array(list(d_primes[label].values())).T
            places = np.array(list(d_primes[label])) + 0.12 * (number - (len(spectra) - 1) / 2)
            axes[0, 1].errorbar(places, values, (values - lows, highs - values), ls="", color=colour, marker=marker)
            axes[0, 1].set_xticks(list(d_primes[label]), [f"{k} above {k - 1}" for k in d_primes[label]])
            axes[0, 1].set(xlabel="grades", ylabel="d′ with 95 % interval")
    left.set(xscale="log", yscale="log", ylim=(1e-5, 1))
    left.set(xlabel="direction, largest first", ylabel="share of squared length")
    left.legend(frameon=False, fontsize="small", loc="lower left")
    figure.suptitle(title, fontsize="medium")
    return figure


def precision_and_recall(
    panels: dict[str, tuple[Float[np.ndarray, " pairs"], Bool[np.ndarray, " pairs"], dict[str, list]]],
    title: str,
) -> Figure:
    """Precision and recall of "related" against the threshold, a panel for each model: cosines, which pairs are
    related, and the thresholds chosen on other pairs, as `scorecard.thresholds` has them."""
    figure, axes = plt.subplots(
        1, len(panels), figsize=(5 * len(panels), 3.6), sharex=True, sharey=True, dpi=100, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis, (name, (cosines, related, chosen)) in zip(axes.flat, panels.items()):
        precision, recall, cuts = precision_recall_curve(related, cosines)
        axis.plot(cuts, precision[:-1], color=COLOURS[0], label="precision")
        axis.plot(cuts, recall[:-1], color=COLOURS[1], label="recall")
        for (label, (cut, low, high)), style in zip(chosen.items(), ("--", ":")):
            if cut is not None:
                axis.axvline(cut, color="black", linestyle=style, linewidth=1, label=f"{label}: {cut:.2f}")
                axis.axvspan(low, cuts[-1] if high is None else high, color="black", alpha=0.1, linewidth=0)
        axis.set(title=name, xlabel="threshold on the cosine", ylim=(0, 1.02))
        axis.legend(frameon=False, fontsize="small", loc="lower left")
    axes.flat[0].set_ylabel("share of pairs")
    figure.suptitle(title, fontsize="medium")
    return figure


def maps(panels: dict[str, Float[np.ndarray, "n 2"]], groups: Sequence[str], title: str) -> Figure:
    """Sentences in two dimensions, a panel for each model, coloured by group; the twelve largest groups are named."""
    names, counts = np.unique(groups, return_counts=True)
    largest = names[np.argsort(-counts, kind="stable")][:12]
    groups = np.array(groups)
    figure, axes = plt.subplots(
        1, len(panels), figsize=(6 * len(panels), 5.4), dpi=100, squeeze=False, layout="constrained"
    )
    for axis, (name, places) in zip(axes.flat, panels.items()):
        axis.scatter(*places[~np.isin(groups, largest)].T, s=4, color="lightgrey", linewidth=0)
        for k, group in enumerate(largest):
            of_group = places[groups == group]
            axis.scatter(*of_group.T, s=6, color=plt.get_cmap("Paired")(k), linewidth=0)
            if len(names) > 1:
                axis.annotate(group.replace("_", " "), np.median(of_group, axis=0), ha="center", fontsize="small")
        axis.set(title=name, xticks=[], yticks=[])
    figure.suptitle(title, fontsize="medium")
    return figure
