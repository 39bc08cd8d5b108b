"""What temperature, epochs, and the mix and stretch of topic and facts do: one JSON line a run, on validation.

python -m experiments.study [--plan simcse own ...] [--part 1/2]

All runs take about three hours of one core. A run that is in experiments/study.jsonl is not done again. `--part 1/2`
and `--part 2/2`, each with OMP_NUM_THREADS=1, share the runs between two processes, which on two cores is faster than
one process with two threads (`make study`). Everything is measured on the **validation** split; what is chosen by it is
judged on the test split once, by experiments.final. `study.ipynb` shows the results.

The results in the file are from before the corpus and the objective were made anew. To start again, remove the file and
give CHOSEN and SIMCSE the values of today.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from experiments import PART_HELP, append_line, mean_and_range, read_lines, runs_to_do
from src.corpus import draw_sentences, load_pairs, load_sentences
from src.encoder import Encoder, load_encoder
from src.quality import order
from src.records import ROOT
from src.scorecard import score
from src.sentences import graded_pairs, triplets
from src.settings import TrainingSettings
from src.similarity import Encode, cosines_of_pairs
from src.targets import topic_and_facts
from src.training import fine_tune
from src.transforms import Centering, SpectralScaling, with_transform

RESULTS, CACHE = ROOT / "experiments" / "study.jsonl", ROOT / "runs" / "cache"
MODEL, MAX_LENGTH = "all-MiniLM-L6-v2", 64
TRAINED_ON, LOOKED_AT, FITTED_ON = 3_072, 1_000, 600  # sentences
TEMPERATURES, SEEDS = (0.05, 0.1, 0.2, 0.4, 0.8), (0, 1, 2)
# of the runs in study.jsonl, which were made before the corpus and the objective were made anew
CHOSEN = TrainingSettings(objective="topic_and_facts", facts=0.7, sharpen=0.0, learning_rate=3e-5)
SIMCSE = replace(CHOSEN, objective="simcse", temperature=0.4)
RATES_AND_BATCHES = ({"learning_rate": 1e-5}, {"learning_rate": 1e-4}, {"batch_size": 32}, {"batch_size": 128})
PLANS = {
    "simcse": [replace(SIMCSE, epochs=3, temperature=t, seed=s) for s, t in product(SEEDS, TEMPERATURES)],
    "own": [replace(CHOSEN, epochs=3, seed=s) for s in SEEDS],
    "mix": [replace(CHOSEN, facts=f) for f in (0.6, 0.65, 0.75, 0.8)],
    "stretch": [replace(CHOSEN, stretch=s) for s in (1.0, 1.5, 2.0, 3.0, 4.0)],
    "labels": [replace(CHOSEN, objective="supervised_simcse", temperature=t) for t in (0.05, 0.4)],
    "rate and batch": [replace(start, **changed) for start in (CHOSEN, SIMCSE) for changed in RATES_AND_BATCHES],
}
FAMILIES = {f"simcse, temperature {t}": replace(SIMCSE, epochs=3, temperature=t) for t in TEMPERATURES}
FAMILIES |= {"topic and facts": replace(CHOSEN, epochs=3)}  # runs that differ in their seed alone
ON_TOP = {"centring": Centering()} | {f"spectral, p = {p}": SpectralScaling(p) for p in (0.125, 0.25, 0.5)}


def draw_data(split: str, train_sentences: int, looked_at: int) -> tuple[list[str], pd.DataFrame, pd.DataFrame]:
    """Training sentences, sentences of the split to look at, and its graded pairs: drawn as in `fine_tune.ipynb`."""
    corpus = load_sentences(ROOT / "data" / "sport_sentences.csv")
    pairs = load_pairs(ROOT / "data" / "graded_pairs.csv")
    training = draw_sentences(corpus, "train", train_sentences)["sentence"].tolist()
    return training, draw_sentences(corpus, split, looked_at), pairs[pairs["split"] == split].reset_index(drop=True)


class ValidationData:
    """Training sentences, and the validation sentences and pairs that every model of a study is measured on."""

    def __init__(self):
        self.training, self.corpus, pairs = draw_data("validation", TRAINED_ON, LOOKED_AT)
        self.pairs = pairs[pairs["kind"] != "adversarial"].reset_index(drop=True)
        control = graded_pairs("test", 40, 0, ROOT / "data" / "control")  # general language
        self.control = control[control["kind"] == "balanced"].reset_index(drop=True)
        self.base = load_encoder(MODEL, max_length=MAX_LENGTH, cache=CACHE)

    def measure(self, encoder: Encoder) -> dict[str, dict[str, float]]:
        """The measures of the encoder as it is, and with each training-free transform on top."""
        known = cache(lambda sentences: encoder.encode(sentences, progress=False))
        ways = {"as it is": lambda sentences: known(tuple(sentences))}  # all of them ask for the same sentences
        for name, transform in ON_TOP.items():
            ways[name] = with_transform(ways["as it is"], transform, self.training[:FITTED_ON])
        return {name: self._measure(name, encode) for name, encode in ways.items()}

    def _measure(self, name: str, encode: Encode) -> dict[str, float]:
        base = partial(self.base.encode, progress=False)
        values = score(name, encode, self.corpus, self.pairs, base, replicates=1).values
        general = order(cosines_of_pairs(encode, self.control), self.control["grade"].to_numpy())
        return values | {"general_language": general}


def run(data: ValidationData, settings: TrainingSettings | None) -> dict:
    """Train, measure after every epoch, and return the line of the results; settings None stands for the base model."""
    line = {"settings": settings and asdict(settings), "model": MODEL, "sha256": data.base.sha256}
    if settings is None:
        return line | {"losses": [], "epochs": {0: data.measure(data.base)}, "minutes": 0}
    start, epochs, rows, targets = time.monotonic(), {}, data.training, None
    if settings.objective == "supervised_simcse":
        rows = triplets("train", TRAINED_ON)
    elif settings.objective == "topic_and_facts":
        targets = topic_and_facts(rows, data.base.encode, settings.facts)  # the base has a cache
    encoder = load_encoder(MODEL, max_length=MAX_LENGTH)  # without one: checkpoints of all runs would take 17 GB
    losses = fine_tune(encoder, rows, settings, lambda epoch: epochs.update({epoch: data.measure(encoder)}), targets)
    return line | {
        "bf16": settings.bf16,
        "losses": np.reshape(losses, (settings.epochs, -1)).mean(1).tolist(),
        "epochs": epochs,
        "minutes": (time.monotonic() - start) / 60,
        "train_sentences": len(rows),
    }


class StudyResults:
    """What `study.ipynb` shows: the measures of the base model, and of every run by epoch."""

    def __init__(self, path: Path | str = RESULTS):
        self.base, self.runs = None, []  # measures by transform; settings and measures by epoch and transform
        for line in read_lines(Path(path)):
            epochs = {int(epoch): measures for epoch, measures in line["epochs"].items()}
            losses = [np.nan, *line["losses"]]  # by epoch: before training there is none
            for epoch, measures in epochs.items():
                measures["as it is"]["loss_over_epoch_1"] = losses[epoch] / losses[1] if epoch else np.nan
            if line["settings"] is None:
                self.base = epochs[0]
            else:
                self.runs.append((TrainingSettings(**line["settings"]), epochs))
        if self.base is None:
            raise ValueError(f"{path} has no line of the base model: run python -m experiments.study")

    def of_seeds(self, family: str, measure: str, transform: str = "as it is") -> list[list[float]]:
        """For each seed of a family, the measure before training and after each epoch."""
        wanted = FAMILIES[family]
        return [
            [measures[transform][measure] for measures in (self.base, *epochs.values())]
            for settings, epochs in self.runs
            if replace(settings, seed=wanted.seed) == wanted
        ]

    def at(self, family: str, measure: str, epoch: int, transform: str = "as it is") -> tuple[float, float, float]:
        """Mean, lowest and highest of the seeds after an epoch; 0 is the base model."""
        return mean_and_range([values[epoch] for values in self.of_seeds(family, measure, transform)])

    def means(self, family: str, measure: str, epochs: Sequence[int] = (0, 1, 2, 3)) -> str:
        """The means after these epochs in words, as in "0.29 → 0.33"."""
        return " → ".join(f"{self.at(family, measure, epoch)[0]:.2f}" for epoch in epochs)

    def frontier(self, measures: Sequence[str]) -> dict[str, dict[str, dict[str, tuple[float, float, float]]]]:
        """For `plots.frontier`: the base model and each family after one epoch, with the transforms on top."""
        points = {"base": {name: {m: mean_and_range([self.base[name][m]]) for m in measures} for name in ON_TOP}}
        for family in FAMILIES:
            points[f"{family}, epoch 1"] = {name: {m: self.at(family, m, 1, name) for m in measures} for name in ON_TOP}
        return points

    def first_epoch(self) -> dict[TrainingSettings, dict[str, float]]:
        """The measures after one epoch with seed 0, by the settings of a run of one epoch."""
        return {replace(s, epochs=1): epochs[1]["as it is"] for s, epochs in self.runs if s.seed == 0}

    def varied(self, start: TrainingSettings, name: str) -> dict[float, dict[str, float]]:
        """The same for the runs that differ from `start` in the setting `name` alone, by its value."""
        values = {getattr(settings, name) for settings in self.first_epoch()}
        runs = {value: self.first_epoch().get(replace(start, **{name: value})) for value in sorted(values)}
        return {value: measures for value, measures in runs.items() if measures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plan", nargs="+", choices=PLANS, default=list(PLANS))
    parser.add_argument("--part", default="1/1", help=PART_HELP)
    options = parser.parse_args()
    done = [line["settings"] and TrainingSettings(**line["settings"]) for line in read_lines(RESULTS)]
    grid = [None, *(settings for plan in options.plan for settings in PLANS[plan])]
    missing = runs_to_do(grid, options.part, done)
    data = ValidationData() if missing else None
    for settings in missing:
        append_line(RESULTS, line := run(data, settings))
        *_, last = line["epochs"].values()
        shown = {measure: round(last["as it is"][measure], 3) for measure in ("width", "topic_order", "fact_order")}
        print(f"{settings or 'base'}: {line['minutes']:.1f} minutes, {shown}", flush=True)


if __name__ == "__main__":
    main()
