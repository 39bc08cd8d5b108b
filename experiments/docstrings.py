"""Another domain: 6,000 sentences from the docstrings of installed libraries, most of them without a name or number.

python -m experiments.docstrings

How related two sentences are follows from where they stand: in the docstring of one function (2), of one module (1), or
of different libraries (0). Functions are held out, a third of them; a sentence belongs to one function. Writes
runs/docstrings.csv and runs/docstring_pairs.csv, which the notebooks take as `corpus_path` and `pairs_path`, and
figures/docstrings.png and .json: order against width of the base model with sharpening, of topic and facts by stretch,
and of SimCSE; one seed. Six minutes on two cores.
"""

import importlib
import inspect
import random
import re
import warnings
from dataclasses import asdict, replace

import numpy as np
import pandas as pd

from experiments.final import FIGURES
from experiments.study import CACHE, CHOSEN, FITTED_ON, MAX_LENGTH, MODEL, SIMCSE, TRAINED_ON
from src import plots
from src.corpus import draw_sentences, load_pairs
from src.encoder import load_encoder
from src.records import ROOT, output_folder
from src.scorecard import score
from src.similarity import Encode
from src.training import fine_tune
from src.transforms import SpectralScaling, with_transform

SENTENCES, PAIRS_PER_GRADE = 6_000, 300
MODULES = (
    "scipy.stats scipy.signal scipy.optimize scipy.ndimage scipy.spatial scipy.linalg scipy.interpolate scipy.sparse "
    "scipy.special scipy.integrate sklearn.metrics sklearn.preprocessing sklearn.cluster sklearn.linear_model "
    "sklearn.ensemble sklearn.decomposition sklearn.feature_extraction sklearn.model_selection numpy numpy.linalg "
    "numpy.random numpy.fft statistics itertools pathlib asyncio subprocess socket datetime email.message zipfile "
    "logging argparse matplotlib.axes pandas"
).split()
RUNS = {
    "topic and facts": {f"stretch {s}": replace(CHOSEN, stretch=s) for s in (1.0, 1.5, 2.0, 2.5)},
    "SimCSE, temperature 0.4": {"epoch 1": SIMCSE},
    "SimCSE, temperature 0.05": {"epoch 1": replace(SIMCSE, temperature=0.05)},
}


def docstring_sentences() -> pd.DataFrame:
    """Plain sentences of 40 to 220 characters, with the module (`sport`) and the function (`event`) that each is in."""
    rows: dict[str, tuple[str, str]] = {}
    for name in MODULES:
        for member, value in inspect.getmembers(importlib.import_module(name), callable):
            methods = inspect.getmembers(value, callable) if inspect.isclass(value) else []
            documented = [value, *(method for name_of_method, method in methods if name_of_method[0] != "_")]
            for item in documented if member[0] != "_" else ():
                headings = r"\n(?:Examples|References|See Also|Parameters|Returns)\n-"
                text = re.split(headings, inspect.getdoc(item) or "")[0]
                for paragraph in text.split("\n\n"):
                    for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", " ".join(paragraph.split())):
                        if re.fullmatch(r"[A-Z][\w\s,.'`():;\-/!?]{38,218}[.!?]", sentence) and "::" not in paragraph:
                            rows.setdefault(sentence, (name, f"{name}.{member}"))
    chosen = random.Random(0).sample(sorted(rows), SENTENCES)
    frame = pd.DataFrame([(sentence, *rows[sentence]) for sentence in chosen], columns=["sentence", "sport", "event"])
    held_out = {event for event in frame["event"].unique() if random.Random(event).random() < 1 / 3}
    return frame.assign(split=np.where(frame["event"].isin(held_out), "test", "train"))


def draw_pairs(test: pd.DataFrame) -> pd.DataFrame:
    """As many pairs of each grade, drawn from the sentences by rejection."""
    rng, rows = np.random.default_rng(0), {grade: [] for grade in (0, 1, 2)}
    groups_of = {grade: test.groupby(column).indices.values() for grade, column in ((1, "sport"), (2, "event"))}
    groups_of = {grade: [group for group in groups if len(group) > 1] for grade, groups in groups_of.items()}
    groups_of[0] = [np.arange(len(test))]
    library, event = test["sport"].str.split(".").str[0].to_numpy(), test["event"].to_numpy()
    while min(map(len, rows.values())) < PAIRS_PER_GRADE:
        for grade, groups in groups_of.items():
            one, two = rng.choice(groups[rng.integers(len(groups))], 2, replace=False)
            fits = (library[one] != library[two], event[one] != event[two], True)[grade]
            if fits and len(rows[grade]) < PAIRS_PER_GRADE:
                first, second = test.iloc[one], test.iloc[two]
                rows[grade].append((first["sentence"], second["sentence"], grade, first["event"]))
    columns = ["sentence1", "sentence2", "grade", "sport1"]  # a resampling takes all pairs of a function
    return pd.DataFrame([row for drawn in rows.values() for row in drawn], columns=columns)


def main() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecated members that are looked at
        frame = docstring_sentences()
    test, runs = frame[frame["split"] == "test"].reset_index(drop=True), output_folder(ROOT / "runs")
    frame.to_csv(runs / "docstrings.csv", index=False)
    draw_pairs(test).to_csv(runs / "docstring_pairs.csv", index=False)
    pairs = load_pairs(runs / "docstring_pairs.csv")
    training = draw_sentences(frame, "train", TRAINED_ON)["sentence"].tolist()

    def point(encode: Encode) -> dict[str, tuple[float, float, float]]:
        card = score("docstrings", encode, test, pairs)
        return {measure: card.estimate(measure) for measure in ("width", "topic_order")}

    base = load_encoder(MODEL, max_length=MAX_LENGTH, cache=CACHE)
    families = {"base": {"as it is": point(base.encode)}, "base, sharpened": {}}
    for p in (0, 0.125, 0.25, 0.5, 0.75):
        sharpened = with_transform(base.encode, SpectralScaling(p), training[:FITTED_ON])
        families["base, sharpened"][f"p = {p}"] = point(sharpened)
    for family, settings_by_name in RUNS.items():
        families[family] = {}
        for name, settings in settings_by_name.items():
            tuned = load_encoder(MODEL, max_length=MAX_LENGTH, cache=CACHE)
            fine_tune(tuned, training, settings)
            families[family][name] = point(tuned.encode)
    title = f"{len(frame):,} docstring sentences, functions held out: {len(test):,} sentences, {len(pairs):,} pairs"
    settings = asdict(CHOSEN) | {"model": MODEL, "train_sentences": len(training), "sentences": len(frame)}
    plots.save_figure(plots.frontier(families, {}, title), FIGURES, "docstrings", settings, families)
    widths_and_orders = {
        (family, name): {measure: estimate[0] for measure, estimate in measures.items()}
        for family, points in families.items()
        for name, measures in points.items()
    }
    print(pd.DataFrame(widths_and_orders).T)


if __name__ == "__main__":
    main()
