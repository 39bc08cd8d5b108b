import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from src import plots
from src.similarity import pairwise_distribution


@pytest.fixture
def distributions(unit_rows):
    return {
        "narrow": pairwise_distribution(unit_rows(80, 8, offset=2)),
        "wide": pairwise_distribution(unit_rows(90, 8, offset=0)),
    }


@pytest.mark.parametrize("draw", [plots.stacked_histograms, plots.overlaid_histograms])
def test_what_is_compared_shares_bins_and_axes(distributions, draw):
    figure = draw(distributions, "title")
    stairs = [patch.get_data() for axis in figure.axes for patch in axis.patches if hasattr(patch, "get_data")]
    assert len(stairs) == 2
    assert np.array_equal(stairs[0].edges, stairs[1].edges)
    assert len({axis.get_xlim() for axis in figure.axes}) == 1
    for data in stairs:
        assert (data.values * np.diff(data.edges)).sum() == pytest.approx(1)
    words = " ".join(text.get_text() for axis in figure.axes for text in axis.texts)
    for distribution in distributions.values():
        assert f"width {distribution.width:.2f}" in words


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


def test_every_other_picture_draws():
    plots.loss_curves({"a": [1.0] * 10, "b": [0.0] * 10}, 4, "title")
    plots.corpus_overview({"train": {"golf": 3}, "test": {"golf": 1, "judo": 4}}, [9, 12, 12], "title")
    plt.close("all")


def test_frontier_draws_a_panel_an_order():
    points = {
        name: {"width": (w, w - 0.1, w + 0.1), "topic_order": (0.3, 0.2, 0.4), "fact_order": (0.6, 0.5, 0.7)}
        for name, w in (("base", 0.3), ("centring", 0.4))
    }
    figure = plots.frontier(points, {"topic_order": 0.1, "fact_order": 0.5}, "title")
    assert [axis.get_ylabel() for axis in figure.axes] == ["topic order (Spearman)", "fact order (Spearman)"]
    assert [text.get_text() for text in figure.axes[-1].get_legend().get_texts()][-2:] == ["base", "centring"]
