import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from src import plots
from src.quality import rung_auc
from src.scorecard import Scorecard
from src.similarity import pairwise_distribution


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def distributions(unit_rows):
    return {
        "narrow": pairwise_distribution(unit_rows(80, 8, offset=2)),
        "wide": pairwise_distribution(unit_rows(90, 8, offset=0)),
    }


def one_panel(distributions, title):
    return plots.overlaid_histograms({"": distributions}, title)


def a_panel_each(distributions, title):
    return plots.overlaid_histograms({name: {name: d} for name, d in distributions.items()}, title)


@pytest.mark.parametrize("draw", [plots.stacked_histograms, one_panel, a_panel_each])
def test_what_is_compared_shares_bins_and_axes(distributions, draw):
    figure = draw(distributions, "title")
    stairs = [patch.get_data() for axis in figure.axes for patch in axis.patches if hasattr(patch, "get_data")]
    assert len(stairs) == 2
    assert np.array_equal(stairs[0].edges, stairs[1].edges)
    assert len({axis.get_xlim() for axis in figure.axes}) == 1
    for data in stairs:
        assert (data.values * np.diff(data.edges)).sum() == pytest.approx(1)
    words = " ".join(text.get_text() for axis in figure.axes for text in axis.texts)
    words += " ".join(axis.get_title(loc="left") for axis in figure.axes)
    for distribution in distributions.values():
        assert f"width {distribution.width:.2f}" in words


def test_a_name_keeps_its_colour_from_picture_to_picture():
    def colours(*runs):
        figure = plots.by_epoch({"width": {run: [0.3, 0.4] for run in runs}}, "title")
        return dict(zip(runs, (line.get_color() for line in figure.axes[0].lines)))

    plots.fix_colours(["base", "a", "b"])
    try:
        drawn = colours("b", "new", "a")
        assert {name: drawn[name] for name in "ab"} == colours("a", "b")
        assert len(set(drawn.values())) == 3
    finally:
        plots.fix_colours([])


def test_over_time_the_lines_get_darker(distributions):
    epochs = {"base": distributions["wide"]} | {f"epoch {e}": distributions["narrow"] for e in (1, 2, 3)}
    figure = plots.overlaid_histograms({"SimCSE": epochs}, "title", over_time=True)
    shades = [sum(patch.get_edgecolor()[:3]) for patch in figure.axes[0].patches[1:]]
    assert sorted(shades, reverse=True) == shades
    assert len(set(shades)) == 3


def test_a_picture_is_saved_with_settings_versions_and_numbers(distributions, tmp_path):
    figure = plots.by_epoch({"width": {"temperature 0.05": [0.3, 0.4], "temperature 0.4": [0.3, 0.5]}}, "title")
    plots.save_figure(figure, tmp_path, "width", {"seed": 0}, {"base": distributions["narrow"].summary()})
    with Image.open(tmp_path / "width.png") as image:
        assert round(image.info["dpi"][0]) == 100
    content = json.loads((tmp_path / "width.json").read_text())
    assert content["settings"] == {"seed": 0}
    assert content["versions"]["torch"].startswith("2.")
    assert content["numbers"]["base"]["pairs"] == 3160
    assert len(list(tmp_path.iterdir())) == 2


def test_no_picture_is_saved_without_its_numbers(tmp_path):
    with pytest.raises(TypeError):
        plots.save_figure(plt.figure(), tmp_path, "width", {}, {"width": np.zeros(3)})
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_out_for_want_of_colours(distributions):
    many = {f"run {k}": distributions["wide"] for k in range(11)}
    titles = [axis.get_title(loc="left") for axis in plots.stacked_histograms(many, "title").axes]
    assert [title.split(":")[0] for title in titles] == list(many)
    figure = plots.by_epoch({"width": {f"run {k}": [0.3, 0.4] for k in range(11)}}, "title")
    assert len(figure.axes[0].get_legend_handles_labels()[1]) == 11


def test_panels_have_plain_titles_and_none_is_empty():
    measures = ["width_within", "topic_order", "rung_auc[1]", "recall_at_precision[0.9]"]
    figure = plots.by_epoch({measure: {"run": [0.3, 0.4]} for measure in measures}, "a long title " * 20)
    assert [axis.get_title().replace("\n", " ") for axis in figure.axes] == [
        "width within a sport",
        "topic order",
        "same sport above other sport",
        "related pairs found at precision 0.9",
    ]
    assert max(map(len, figure.get_suptitle().splitlines())) <= 130


def test_loss_curves_have_a_panel_a_run():
    figure = plots.loss_curves({"a": [1.0] * 10, "b": [0.0, 1.0] * 5}, "title")
    assert [axis.get_title() for axis in figure.axes] == ["a", "b"]
    assert figure.axes[1].lines[0].get_ydata().tolist() == [0.0, 1.0] * 5


def test_corpus_overview_stacks_the_splits():
    counts = {"train": {"table_tennis": 3}, "test": {"table_tennis": 1, "judo": 4}}
    left, right = plots.corpus_overview(counts, [9, 12, 12], "title").axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["table tennis", "judo"]
    bars = [[(bar.get_x(), bar.get_width()) for bar in container] for container in left.containers]
    assert bars == [[(0, 3), (0, 0)], [(3, 1), (0, 4)]]
    assert [bar.get_height() for bar in right.patches] == [1, 0, 0, 2]


def test_frontier_draws_a_panel_an_order():
    point = {"width": (0.3, 0.2, 0.4), "topic_order": (0.3, 0.2, 0.4), "fact_order": (0.6, 0.5, 0.7)}
    figure = plots.frontier({"base": {"base": point}}, {"topic_order": 0.1, "fact_order": 0.5}, "title")
    assert [axis.get_ylabel() for axis in figure.axes] == ["topic order (Spearman)", "fact order (Spearman)"]
    (bar,) = figure.axes[1].collections[1].get_segments()  # where there is nothing to shade
    assert bar[:, 1].tolist() == [0.5, 0.7]


def test_seeds_are_a_line_and_a_band():
    figure = plots.by_epoch({"width": {"temperature 0.4": [[0.3, 0.4, 0.6], [0.3, 0.5, 0.5]]}}, "title")
    (axis,) = figure.axes
    assert axis.lines[0].get_ydata().tolist() == pytest.approx([0.3, 0.45, 0.55])
    band = axis.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == 0.6
    assert [text.get_text() for text in axis.get_xticklabels()] == ["base", "1", "2"]


def test_frontier_connects_the_transforms_of_a_model():
    points = {f"p = {p}": {"width": (p, p, p), "topic_order": (0.4 - p, 0.3 - p, 0.5 - p)} for p in (0.1, 0.3)}
    one = {"rescaled": {"width": (0.5, 0.5, 0.5), "topic_order": (0.3, 0.2, 0.4)}}
    figure = plots.frontier({"base": points, "rescaled": one}, {"topic_order": 0.2}, "title")
    (axis,) = figure.axes
    assert [line.get_label() for line in axis.lines] == ["base", "rescaled", "word overlap, best of three"]
    assert axis.lines[0].get_xydata().tolist() == [pytest.approx([0.1, 0.3]), pytest.approx([0.3, 0.1])]
    assert [text.get_text() for text in axis.texts] == ["p = 0.1", "p = 0.3"]


@pytest.fixture
def graded():
    rng, grades = np.random.default_rng(0), np.tile(np.arange(5), 40)
    return {name: (rng.normal(scale * grades, 0.1), grades) for name, scale in (("before", 0.05), ("after", 0.2))}


def test_ridges_share_axes_and_have_equal_areas(graded):
    figure = plots.ridgeline(graded, "title")
    assert [axis.get_title() for axis in figure.axes] == ["before", "after"]
    assert len({(axis.get_xlim(), axis.get_ylim()) for axis in figure.axes}) == 1
    grids = [line.get_xdata() for axis in figure.axes for line in axis.lines if len(line.get_xdata()) > 2]
    assert len(grids) == 10
    assert all(np.array_equal(grid, grids[0]) for grid in grids)
    for axis in figure.axes:
        ridges = [line.get_ydata() for line in axis.lines if len(line.get_xdata()) > 2]
        areas = [np.trapezoid(ridge - grade, grids[0]) for grade, ridge in enumerate(ridges)]
        assert areas == pytest.approx([areas[0]] * 5, rel=0.02)
        assert all(ridge.max() < grade + 1 for grade, ridge in enumerate(ridges))  # no ridge hides another


def test_a_ridge_lies_where_its_cosines_are(graded):
    figure = plots.ridgeline({"after": graded["after"]}, "title")
    cosines, grades = graded["after"]
    for grade, line in enumerate(line for line in figure.axes[0].lines if len(line.get_xdata()) > 2):
        density = line.get_ydata() - grade
        mean = np.average(line.get_xdata(), weights=density)
        assert mean == pytest.approx(cosines[grades == grade].mean(), abs=0.005)
    words = [text.get_text() for text in figure.axes[0].texts]
    for k in (1, 2, 3, 4):
        assert f"AUC {rung_auc(cosines, grades, k):.2f}" in words


def test_ridges_of_few_or_equal_pairs():
    figure = plots.ridgeline({"few": (np.array([0.1, 0.2, 0.2, 0.9]), np.array([0, 2, 2, 3]))}, "title")
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [
        "0 other sport",
        "2 same kind of event",
        "3 one fact differs",
    ]
    assert not figure.axes[0].texts  # no AUC of a single pair
    figure = plots.ridgeline({"equal": (np.full(4, 0.3), np.array([0, 0, 1, 1]))}, "title")
    ridges = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 2]
    assert len(ridges) == 2 and all(np.isfinite(ridge.get_xydata()).all() for ridge in ridges)


@pytest.mark.parametrize("scale", [[0, 0.5, 1], [1, 2, 5], [-1, 0, 1]])
def test_ridges_of_other_grades_are_placed_and_compared_by_rank(scale):
    ranks = np.tile([0, 1, 2], 40)
    cosines, grades = np.random.default_rng(0).normal(0.1 * ranks, 0.1), np.array(scale)[ranks]
    lowest_missing = cosines[ranks > 0], grades[ranks > 0]
    figure = plots.ridgeline({"all": (cosines, grades), "two": lowest_missing}, "title")
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [f"{grade:g}" for grade in scale]
    bases = [[line.get_ydata().min() for line in axis.lines if len(line.get_xdata()) > 2] for axis in figure.axes]
    assert bases == [pytest.approx([0, 1, 2], abs=0.01), pytest.approx([1, 2], abs=0.01)]
    words = [f"AUC {rung_auc(cosines, ranks, k):.2f}" for k in (1, 2)]
    assert [[text.get_text() for text in axis.texts] for axis in figure.axes] == [words, words[1:]]
    colours = [[line.get_color() for line in axis.lines if len(line.get_xdata()) > 2] for axis in figure.axes]
    assert colours == [list(plots.COLOURS[:3]), list(plots.COLOURS[1:3])]


def test_differences_are_filled_where_the_interval_excludes_zero():
    noise = np.linspace(-0.01, 0.01, 41)

    def card(name, width, order, order_noise=5 * noise[::-1]):
        replicates = pd.DataFrame({"width": width + noise, "topic_order": order + order_noise})
        return Scorecard(name, {"width": width, "topic_order": order, "effective_rank": 9.0}, replicates, {"seed": 0})

    # the order of "wider" moves against the base's
    cards = [card("base", 0.3, 0.5), card("wider", 0.4, 0.51, 5 * noise), card("centred", 0.2, 0.9)]
    figure = plots.differences(cards, "title")  # without effective_rank, which has no replicates
    assert [axis.get_title().replace("\n", " ") for axis in figure.axes] == [
        "width of all pairs (0.30)",
        "topic order (0.50)",
    ]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["wider", "centred"]
    marks = [[line for line in axis.lines if line.get_marker() not in ("None", "")] for axis in figure.axes]
    assert [[mark.get_xdata()[0] for mark in panel] for panel in marks] == [
        pytest.approx([0.1, -0.1]),
        pytest.approx([0.01, 0.4]),
    ]
    assert [[mark.get_mfc() != "white" for mark in panel] for panel in marks] == [[True, True], [False, True]]


def test_precision_and_recall_show_the_thresholds_that_can_be_met():
    cosines, related = np.array([0.1, 0.4, 0.6, 0.9]), np.array([False, True, False, True])
    chosen = {"precision 0.9": (0.7, 0.6, None), "false positive rate 0.01": (None, None, None)}
    figure = plots.precision_and_recall({"base": (cosines, related, chosen)}, "title")
    (axis,) = figure.axes
    assert axis.get_legend_handles_labels()[1] == ["precision", "recall", "precision 0.9: 0.70"]
    assert axis.lines[0].get_ydata()[-1] == 1
    (span,) = axis.patches
    assert (span.get_x(), span.get_x() + span.get_width()) == pytest.approx((0.6, 0.9))
