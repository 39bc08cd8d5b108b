"""Every picture of the notebooks: drawn from values already computed, saved beside a JSON of settings and numbers."""

from collections.abc import Iterable, Sequence
from itertools import cycle
from pathlib import Path
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Bool
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler
from scipy.stats import norm
from sklearn.metrics import precision_recall_curve

from src.quality import Cosines, Scale, rung_auc
from src.records import library_versions, write_atomically, write_json
from src.scorecard import MAIN, Scorecard
from src.similarity import PairwiseDistribution

# Okabe & Ito, and Tol's wine: safe for the colour-blind
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#882255")
MARKERS = "osD^vP*X<>"
GRADES = {0: "other sport", 1: "same sport", 2: "same kind of event", 3: "one fact differs", 4: "same facts"}
LABELS = {
    "width": "width of all pairs", "width_within": "width within a sport", "mean": "mean cosine",
    "recall_at_precision[0.9]": "related pairs found at precision 0.9",
    **{f"recall_at_fpr[{rate}]": f"found at a false-positive rate of {rate}" for rate in (0.05, 0.01)},
    "related_auc": "related above others", "order": "order of all grades", "everyday_order": "everyday language",
    **{f"adversarial_{kind}_order": f"{kind} order where shared words mislead" for kind in ("topic", "fact")},
    "name_trap_auc": "same kind of event above shared names",
    **{f"rung_auc[{k}]": f"{GRADES[k]} above {GRADES[k - 1]}" for k in (1, 2, 3, 4)},
}  # fmt: skip
COSINE = "cosine similarity of a pair of sentences"
SHOWN_BINS = 200  # the 4,000 of a distribution joined, so that each is 0.01 wide in all that is compared
_fixed: dict[str, str] = {}  # name -> colour, see `fix_colours`


def save_figure(figure: Figure, folder: Path | str, name: str, settings: dict, numbers: dict) -> None:
    """Write name.json, the settings that made the figure, library versions and its numbers, and name.png (100 dpi)."""
    content = {"settings": settings, "versions": library_versions(), "numbers": numbers}
    write_json(Path(folder) / f"{name}.json", content)
    write_atomically(Path(folder) / f"{name}.png", lambda path: figure.savefig(path, dpi=100, format="png"))


def _grid(count: int, height: float | int, title: str, columns: int = 4, **options) -> tuple[Figure, np.ndarray]:
    """A figure of `count` panels, each `height` inches high, at most `columns` in a row, under a wrapped title."""
    rows, columns = -(-count // columns), min(count, columns)
    size = 10, 0.6 + rows * height
    figure, axes = plt.subplots(rows, columns, figsize=size, dpi=100, layout="constrained", squeeze=False, **options)
    for unused in axes.flat[count:]:
        unused.remove()
    figure.suptitle("\n".join(fill(line, 130) for line in title.splitlines()), fontsize="medium")
    return figure, axes.flat[:count]


def fix_colours(names: Sequence[str]) -> None:
    """From now on each of these has its own colour, the same in every picture."""
    _fixed.clear()
    _fixed.update(zip(names, cycle(COLOURS)))


def _colours(names: Iterable[str]) -> list[str]:
    """The fixed colours of the names, and the next ones that are free for all others."""
    names = list(names)
    taken = [_fixed[name] for name in names if name in _fixed]
    free = cycle([colour for colour in COLOURS if colour not in taken] or COLOURS)
    return [_fixed.get(name) or next(free) for name in names]


def left_aligned(table: pd.DataFrame) -> Styler:
    """A table whose sentences can be read: left-aligned, numbers to two digits; the same HTML in every run."""
    left = {"selector": "th, td", "props": "text-align: left; vertical-align: top"}
    return table.style.format(precision=2, escape="html").set_table_styles([left]).set_uuid("left")


def label_of(measure: str) -> str:
    return LABELS.get(measure, measure.replace("_", " ").replace("[", " ").replace("]", ""))


def corpus_overview(counts: dict[str, dict[str, int]], lengths: Sequence[int], title: str) -> Figure:
    """Sentences by sport, stacked by split (`counts[split][sport]`), beside the lengths of the sentences in words."""
    figure, (left, right) = _grid(2, 5.4, title, width_ratios=[3, 2])
    table = pd.DataFrame(counts).rename(index=lambda sport: sport.replace("_", " ")).sort_index(ascending=False)
    table.plot.barh(stacked=True, ax=left, color=COLOURS, width=0.8, xlabel="sentences", ylabel="")
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False)
    right.hist(lengths, bins=np.arange(min(lengths), max(lengths) + 2) - 0.5, color=COLOURS[0])
    right.set(xlabel="words in a sentence", ylabel="sentences")
    return figure


def stacked_histograms(distributions: dict[str, PairwiseDistribution], title: str) -> Figure:
    """One histogram above the other on shared bins, each with mean, p5, p95 and width marked."""
    title = f"{title}\nshaded: p5 to p95, nine pairs in ten; dashed: mean"
    figure, axes = _grid(len(distributions), 2.1, title, columns=1, sharex=True)
    for axis, (label, distribution), colour in zip(axes, distributions.items(), _colours(distributions)):
        axis.axvspan(distribution.quantile(0.05), distribution.quantile(0.95), color=colour, alpha=0.12, lw=0)
        axis.axvline(distribution.mean, color=colour, lw=1.5, ls="--")
        words = "width {width:.2f}, mean {mean:.2f}, p5 {p5:.2f}, p95 {p95:.2f}".format(**distribution.summary())
        axis.set_title(f"{label}: {words}", loc="left", fontsize="medium")
        _draw_histogram(axis, distribution, colour, filled=True)
        axis.set(ylabel="density")
    axes[-1].set(xlabel=COSINE, xlim=_shown_range(distributions.values()))
    return figure


def overlaid_histograms(
    panels: dict[str, dict[str, PairwiseDistribution]], title: str, over_time: bool = False
) -> Figure:
    """Outlines over each other on shared bins, with the width of each drawn as a bar from p5 to p95 below them: a
    column for each of `panels`. The first of a panel is filled; with `over_time` the others get darker and darker."""
    count, most = len(panels), max(map(len, panels.values()))
    figure, axes = _grid(
        2 * count, 2.3, title, columns=count, sharex=True, sharey="row", height_ratios=[6, 1 + most / 2]
    )
    for column, (panel, distributions) in enumerate(panels.items()):
        axis, bars = axes[column], axes[count + column]
        colours = _colours(distributions)
        if over_time:
            colours[1:] = [str(0.75 * (1 - share)) for share in np.linspace(0, 1, len(colours) - 1)]  # greys
        for row, ((label, distribution), colour) in enumerate(zip(distributions.items(), colours)):
            _draw_histogram(axis, distribution, colour, filled=row == 0, label=label)
            low, high = distribution.quantile(0.05), distribution.quantile(0.95)
            bars.plot([low, high], [-row, -row], color=colour, lw=6, solid_capstyle="butt")
            bars.plot(distribution.mean, -row, marker="|", color="white", ms=9, mew=2)
            bars.text(high + 0.01, -row, f"width {distribution.width:.2f}", va="center", fontsize="small")
        axis.set_title(panel, fontsize="medium")
        bars.set(xlabel=COSINE, yticks=[], ylim=(-most + 0.3, 0.7))
    axes[0].legend(frameon=False)
    axes[0].set(ylabel="density", xlim=_shown_range(d for of_panel in panels.values() for d in of_panel.values()))
    axes[count].set(ylabel="p5–p95")
    return figure


def _draw_histogram(axis: Axes, distribution: PairwiseDistribution, colour: str, filled: bool, **options) -> None:
    counts = distribution.counts.reshape(SHOWN_BINS, -1).sum(1)
    density = counts / counts.sum() * SHOWN_BINS / 2
    style = {"color": colour, "fill": filled, "alpha": 0.5 if filled else 1}
    axis.stairs(density, np.linspace(-1, 1, SHOWN_BINS + 1), lw=1.8, **style, **options)


def _shown_range(distributions: Iterable[PairwiseDistribution]) -> tuple[float, float]:
    """The cosines that 99.9 % of the pairs of each lie in, and room for a label."""
    ends = [(distribution.quantile(0.0005), distribution.quantile(0.9995)) for distribution in distributions]
    return max(min(low for low, _ in ends) - 0.05, -1.0), min(max(high for _, high in ends) + 0.12, 1.0)


def loss_curves(losses: dict[str, Sequence[float]], title: str) -> Figure:
    """Loss of every step, a panel a run since their scales differ."""
    figure, axes = _grid(len(losses), 2.6, title)
    for axis, (run, values), colour in zip(axes, losses.items(), _colours(losses)):
        axis.plot(np.arange(1, len(values) + 1), values, color=colour, lw=1)
        axis.set(xlabel="step", ylabel="loss", ylim=(0, None))
        axis.set_title(fill(run, 30), fontsize="medium")
    return figure


def by_epoch(panels: dict[str, dict[str, Sequence]], title: str, columns: int = 4) -> Figure:
    """One panel a measure, one line a run: `panels[measure][run]` holds its values from epoch 0 (base) on, of shape
    (epochs + 1,), or (seeds, epochs + 1) for the mean and, shaded, lowest to highest."""
    figure, axes = _grid(len(panels), 3, title, columns)
    for axis, (measure, runs) in zip(axes, panels.items()):
        for (run, values), colour, marker in zip(runs.items(), _colours(runs), cycle(MARKERS[1:])):
            values = np.atleast_2d(values)
            epochs = np.arange(values.shape[1])
            axis.fill_between(epochs, values.min(0), values.max(0), color=colour, alpha=0.2, lw=0)
            axis.plot(epochs, values.mean(0), color=colour, marker=marker, label=run)
        axis.axhline(values[0, 0], color="grey", lw=0.8, ls=":")
        axis.set_title(fill(label_of(measure), 26), fontsize="medium")
        epochs = range(max(np.shape(values)[-1] for values in runs.values()))
        axis.set(xlabel="epoch", xticks=epochs, xticklabels=["base", *epochs[1:]], ymargin=0.2)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def frontier(
    families: dict[str, dict[str, dict[str, tuple[float, float, float]]]], control: dict[str, float], title: str
) -> Figure:
    """Each order against the width, a panel an order. A model is better than another where its line is above the
    other's at the same width. `families[model][transform][measure]` is value, low and high; `control[order]` has no
    width: it is a dashed line."""
    points = next(iter(families.values()))
    orders = [measure for measure in next(iter(points.values())) if measure != "width"]
    figure, axes = _grid(len(orders), 4, title)
    for axis, order in zip(axes, orders):
        for (label, points), colour, marker in zip(families.items(), _colours(families), cycle(MARKERS)):
            x = [point["width"][0] for point in points.values()]
            values, lows, highs = np.array([point[order] for point in points.values()]).T
            axis.plot(x, values, color=colour, marker=marker, label=label)
            axis.fill_between(x, lows, highs, color=colour, alpha=0.12, lw=0)
            if len(points) == 1:  # too narrow to be shaded, and its label is its name
                axis.vlines(x, lows, highs, color=colour, lw=1)
                continue
            for name, *place in zip(points, x, values):
                axis.annotate(name, place, (0, 6), textcoords="offset points", ha="center", fontsize=7)
        if order in control:
            axis.axhline(control[order], color="grey", ls="--", lw=1, label="word overlap, best of three")
        axis.set(xlabel=f"{label_of('width')} (p95 − p5)", ylabel=f"{label_of(order)} (Spearman)", xmargin=0.08)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def ridgeline(panels: dict[str, tuple[Cosines, Scale]], title: str) -> Figure:
    """Where the cosines of each grade lie: `panels[label]` holds cosines and grades, which may be any numbers. Ridges
    of a panel have the same area; all are smoothed by a Gaussian whose deviation is 1.5 % of the range shown."""
    cosines, grades = (np.concatenate(values) for values in zip(*panels.values()))
    scale, margin = np.unique(grades), 0.05 * (np.ptp(cosines) or 1)
    grid = np.linspace(cosines.min() - margin, cosines.max() + margin, 400)
    title += "\nline: median; bar: p5 to p95; AUC: probability that a pair is above one of the grade below"
    figure, axes = _grid(len(panels), max(4.4, 0.6 * len(scale)), title, sharex=True, sharey=True)
    for axis, (label, (cosines, grades)) in zip(axes, panels.items()):
        ranks = np.searchsorted(scale, grades)
        chosen = {int(rank): cosines[ranks == rank] for rank in np.unique(ranks)}
        density = {rank: norm.pdf(grid[:, None], chosen[rank], 0.015 * np.ptp(grid)).mean(1) for rank in chosen}
        for rank in chosen:  # 0.75 leaves room for the words above a ridge
            height, colour = 0.75 * density[rank] / np.max(list(density.values())), COLOURS[rank % len(COLOURS)]
            axis.fill_between(grid, rank, rank + height, color=colour, alpha=0.6, lw=0)
            axis.plot(grid, rank + height, color=colour, lw=1)
            low, median, high = np.quantile(chosen[rank], [0.05, 0.5, 0.95])
            axis.plot([low, high], [rank, rank], color=colour, lw=3, solid_capstyle="butt")
            axis.plot([median, median], [rank, rank + np.interp(median, grid, height)], color="black", lw=1.5)
            if min(len(chosen[rank]), len(chosen.get(rank - 1, ()))) > 1:
                words = f"AUC {rung_auc(cosines, ranks, rank):.2f}"
                axis.annotate(words, (0.99, rank - 0.2), xycoords=("axes fraction", "data"), ha="right", fontsize=8)
        axis.set(title=label, xlabel=COSINE, xlim=(grid[0], grid[-1]))
    names = GRADES if set(scale) <= set(GRADES) else {}  # a user's own scale has no names
    axes[0].set_yticks(range(len(scale)), [f"{grade:g} {names.get(grade, '')}".strip() for grade in scale])
    return figure


def differences(cards: Sequence[Scorecard], title: str, measures: Sequence[str] = MAIN) -> Figure:
    """The figure of `scorecard.compare`: a panel a measure, with each card's difference to the first card and the 95 %
    interval of that paired difference; filled where it excludes 0."""
    base, *others = cards
    measures = [measure for measure in measures if all(measure in card.replicates for card in cards)]
    title += f"\ndifference to {base.name} (its value in brackets), 95 % interval; filled: it excludes 0"
    figure, axes = _grid(len(measures), 0.6 + 0.22 * len(cards), title, columns=5, sharey=True)
    colours = _colours([card.name for card in cards])
    for axis, measure in zip(axes, measures):
        axis.axvline(0, color=colours[0], lw=1)
        for row, (card, colour, marker) in enumerate(zip(others, colours[1:], cycle(MARKERS[1:]))):
            difference, low, high = card.estimate(measure, minus=base)
            axis.plot([low, high], [row, row], color=colour, lw=1.5)
            axis.plot(difference, row, marker=marker, color=colour, mfc=colour if low > 0 or high < 0 else "white")
        axis.set_title(fill(f"{label_of(measure)} ({base.values[measure]:.2f})", 22), fontsize="small")
        axis.tick_params(labelsize="small")
        axis.locator_params(axis="x", nbins=4)
    axes[0].set_yticks(range(len(others)), [card.name for card in others])
    axes[0].set_ylim(len(others) - 0.5, -0.5)  # the first on top, and none on the frame
    return figure


def precision_and_recall(panels: dict[str, tuple[Cosines, Bool[np.ndarray, " pairs"], dict]], title: str) -> Figure:
    """Precision and recall of "related" against the threshold, a panel for each model: cosines, which pairs are
    related, and the thresholds chosen on other pairs: a label's value, low and high, None where it cannot be met."""
    figure, axes = _grid(len(panels), 3.2, title, sharex=True, sharey=True)
    for axis, (name, (cosines, related, chosen)) in zip(axes, panels.items()):
        precision, recall, thresholds = precision_recall_curve(related, cosines)
        axis.plot(thresholds, precision[:-1], color=COLOURS[0], label="precision")
        axis.plot(thresholds, recall[:-1], color=COLOURS[1], label="recall")
        for (label, (threshold, low, high)), style in zip(chosen.items(), cycle(("--", ":", "-."))):
            if threshold is not None:
                axis.axvline(threshold, color="black", ls=style, lw=1, label=f"{label}: {threshold:.2f}")
                low, high = thresholds[0] if low is None else low, thresholds[-1] if high is None else high
                axis.axvspan(low, high, color="black", alpha=0.1, lw=0)
        axis.set(title=name, xlabel="threshold on the cosine", ylabel="share of pairs", ylim=(0, 1.02))
        axis.legend(frameon=False, fontsize="small", loc="lower left")
    return figure
