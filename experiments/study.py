"""What temperature and epochs do to SimCSE, over seeds, on the validation split.

python -m experiments.study [--seeds 0 1 2] [--part 1/2]

A JSON line a run in experiments/study.jsonl; what is in the file is not done again. A run takes five minutes of two
cores. `--part 1/2` and `--part 2/2`, each with OMP_NUM_THREADS=1, share the runs between two processes (`make study`).
Then figures/study.json and .png are drawn.
"""

import argparse
from functools import partial
from itertools import product

from experiments import (
    CACHE,
    FIGURES,
    MAX_LENGTH,
    MODEL,
    PART_HELP,
    SHOWN,
    SportData,
    append_run,
    read_lines,
    runs_to_do,
)
from src import plots
from src.encoder import load_encoder
from src.records import ROOT
from src.settings import TrainingSettings
from src.training import fine_tune

JUDGED_BY = 100  # graded pairs of each kind and grade
RESULTS = ROOT / "experiments" / "study.jsonl"
DRAWN = ("width", "width_within", "topic_order", "fact_order", "name_trap_auc", "everyday_order")
TEMPERATURES, EPOCHS, SENTENCES = (0.05, 0.4, 0.1, 0.8, 0.2), 3, 1_536


def run(data: SportData, temperature: float, seed: int) -> dict:
    """The measures of one run before training and after every epoch, and its losses."""
    encoder = load_encoder(MODEL, max_length=MAX_LENGTH)
    base = load_encoder(MODEL, max_length=MAX_LENGTH, cache=CACHE)  # whose embeddings are made once for all runs
    epochs = [data.measure(partial(base.encode, progress=False))]
    settings = TrainingSettings(objective="simcse", temperature=temperature, epochs=EPOCHS, seed=seed)

    def after_epoch(epoch: int) -> None:
        epochs.append(data.measure(partial(encoder.encode, progress=False)))

    losses = fine_tune(encoder, data.training[:SENTENCES], settings, after_epoch)
    return {"epochs": epochs, "losses": losses}


def write_figure(lines: list[dict]) -> None:
    # no decisions: the validation pairs would judge the thresholds that they chose
    measures = [measure for measure in SHOWN if not measure.startswith("recall")]
    panels = {measure: {} for measure in measures}
    for measure, line in product(measures, sorted(lines, key=lambda line: line["temperature"])):
        of_temperature = panels[measure].setdefault(f"temperature {line['temperature']}", [])
        of_temperature.append([epoch[measure] for epoch in line["epochs"]])
    seeds = sorted({line["seed"] for line in lines})
    title = f"SimCSE, {MODEL}, validation split, seeds: {len(seeds)}"
    figure = plots.by_epoch({measure: panels[measure] for measure in DRAWN}, title, columns=3)
    settings = {"model": MODEL, "train_sentences": SENTENCES, "epochs": EPOCHS, "seed": seeds}
    plots.save_figure(figure, FIGURES, "study", settings, panels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--part", default="1/1", help=PART_HELP)
    options = parser.parse_args()
    done = [(line["seed"], line["temperature"]) for line in read_lines(RESULTS)]
    missing = runs_to_do(list(product(options.seeds, TEMPERATURES)), options.part, done)
    data = SportData("validation", JUDGED_BY) if missing else None
    for seed, temperature in missing:
        key = {"model": MODEL, "temperature": temperature, "seed": seed}
        append_run(RESULTS, key, partial(run, data, temperature, seed))
    if options.part.endswith("/1"):
        write_figure([line for line in read_lines(RESULTS) if "epochs" in line])


if __name__ == "__main__":
    main()
