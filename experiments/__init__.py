"""The studies behind the notebooks. Here is what they share: data, runs divided between processes, files of results."""

import src  # noqa: F401, I001  before torch is loaded: it says how torch's threads wait
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes

from src import plots
from src.corpus import draw_sentences, load_sentences
from src.pairs import draw_pairs, everyday_pairs, load_pairs
from src.records import ROOT, library_versions
from src.scoring import score
from src.training import Collapse
from src.transforms import Encode

MODEL, MAX_LENGTH = "all-MiniLM-L6-v2", 64
TRAINED_ON, TEST_SENTENCES, JUDGING = 3_072, 1_500, 200  # sentences; graded pairs of each kind and grade
FIGURES, CACHE = ROOT / "figures", ROOT / "runs" / "cache"
SHOWN = (
    "recall_at_precision[0.9]", "recall_at_fpr[0.01]", "order", "topic_order", "fact_order", "adversarial_topic_order",
    "adversarial_fact_order", "name_trap_auc", "width", "width_within", "everyday_order",
)  # fmt: skip
DRAWN = (
    "recall_at_precision[0.9]", "recall_at_fpr[0.01]", "topic_order", "fact_order", "width_within", "everyday_order",
)  # fmt: skip
PART_HELP = "which of how many processes this is, as in 1/2: each has its share of the runs"


class SportData:
    """Sentences and graded pairs to train on, and those of `split`, by which models are judged."""

    def __init__(self, split: str, judging: int = JUDGING):
        corpus = load_sentences(ROOT / "data" / "sport_sentences.csv")
        pairs = load_pairs(ROOT / "data" / "graded_pairs.csv")
        self.told = draw_sentences(corpus, "train", TRAINED_ON)  # with the facts that each sentence tells
        self.training = self.told["sentence"].tolist()
        self.sentences = draw_sentences(corpus, split, TEST_SENTENCES)
        self.labelled = pairs[pairs["split"] == "train"]
        _, validation, self.pairs = draw_pairs(pairs, 0, judging, judged=split)
        # decisions are judged on other pairs than those that choose the threshold
        self.validation = None if split == "validation" else validation
        self.everyday = everyday_pairs()

    def measure(self, encode: Encode) -> dict[str, float]:
        return score(
            "", encode, self.sentences, self.pairs, thresholds_from=self.validation, everyday=self.everyday,
            replicates=1,
        ).values  # fmt: skip


def runs_to_do(grid: Sequence, part: str = "1/1", done: Sequence = ()) -> list:
    """This process's share of the runs in `grid` that are not done. Part "1/2" is the first of two processes; a run
    that is in the grid twice counts once."""
    number, count = map(int, part.split("/"))
    if not 1 <= number <= count:
        raise ValueError(f"part is {part}: 1/{count} to {count}/{count} are the parts of {count} processes")
    distinct = [run for place, run in enumerate(grid) if run not in grid[:place]]
    return [run for run in distinct[number - 1 :: count] if run not in done]


def append_run(file: Path, key: dict, run: Callable[[], dict]) -> None:
    """Add the line of a run to a file of JSON lines, or a line that says that it collapsed. It is written at once: two
    processes can share the file, and a kill leaves no half line."""
    try:
        line = run()
    except Collapse as error:
        line = {"collapsed": str(error)}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    with open(file, "ab", buffering=0) as lines:
        lines.write((json.dumps(key | line | {"device": device, "versions": library_versions()}) + "\n").encode())
    measures = line.get("measures") or line.get("epochs", [{}])[-1]  # the last epoch's
    print(*key.values(), line.get("collapsed", {m: round(measures[m], 3) for m in SHOWN if m in measures}), flush=True)


def read_lines(file: Path) -> list[dict]:
    """The runs in a file of JSON lines; none where there is no file."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def mean_and_range(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, lowest and highest of the seeds."""
    return float(np.mean(values)), float(min(values)), float(max(values))


def label_curves(axis: Axes, ways: Mapping[str, Mapping[int, Sequence[float]]]) -> None:
    """One measure against the number of graded pairs: for each way of training a mean, with a band from the lowest to
    the highest draw. A way that uses no pairs is a horizontal line."""
    counts = sorted({count for by_count in ways.values() for count in by_count if count})
    levels, styles = iter([":", "--", "-."]), zip(plots.COLOURS, plots.MARKERS)
    for way, by_count in ways.items():
        middle, low, high = np.array(list(by_count.values())).T
        if list(by_count) == [0]:
            axis.axhline(middle[0], color="grey", ls=next(levels), label=way)
            continue
        colour, marker = next(styles)
        places = [counts.index(count) for count in by_count]
        axis.fill_between(places, low, high, color=colour, alpha=0.15, lw=0)
        axis.plot(places, middle, color=colour, marker=marker, label=way)
    axis.set_xticks(range(len(counts)), counts)
