"""What graded pairs buy: recall, order, range and everyday language against their number, on the test split.

python -m experiments.labels [--model NAME] [--draws 0 1 2 3 4] [--part 1/2]

Each run draws its pairs anew from the train split and trains in one of `WAYS`: from graded pairs; from topic and facts,
without pairs; or with sentence-transformers, by its CoSENTLoss or its CosineSimilarityLoss in as many steps of as many
pairs. Two more ways learn from pairs of the corpus' own sentences, graded by the facts they tell: proposed by
`src.grading`, as a user would grade them, or drawn at random.

A JSON line a run in experiments/labels.jsonl; what is in the file is not done again, and `--part` shares the runs
between processes. A run takes two minutes of two cores. Then figures/label_curve.json and .png are drawn; `--draws`
without a number only draws.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import CoSENTLoss, CosineSimilarityLoss
from transformers import PrinterCallback

from experiments import (
    CACHE,
    DRAWN,
    FIGURES,
    JUDGING,
    MAX_LENGTH,
    MODEL,
    PART_HELP,
    SHOWN,
    TRAINED_ON,
    SportData,
    append_run,
    label_curves,
    mean_and_range,
    read_lines,
    runs_to_do,
)  # fmt: skip
from src import plots
from src.encoder import load_encoder
from src.grading import propose_pairs
from src.objectives import PAIR_BATCH
from src.presets import find_weights
from src.records import ROOT
from src.settings import TrainingSettings
from src.training import fine_tune
from src.transforms import Encode

RESULTS = ROOT / "experiments" / "labels.jsonl"
OWN = {
    "graded pairs": TrainingSettings(objective="graded_pairs"),
    "topic and facts": TrainingSettings(objective="topic_and_facts"),
}
OTHERS = {"CoSENTLoss": CoSENTLoss, "CosineSimilarityLoss": CosineSimilarityLoss}
PICKED = ("proposed pairs", "random pairs")
WAYS = {  # and the numbers of pairs that each is given
    "graded pairs": (30, 100, 300, 1_000, 3_000),
    "topic and facts": (0,),
    "CoSENTLoss": (30, 100, 300, 1_000, 3_000),
    "CosineSimilarityLoss": (30, 100, 300, 1_000, 3_000),
    "proposed pairs": (100, 300),
    "random pairs": (300,),
}


def run(data: SportData, model: str, way: str, count: int, draw: int) -> dict:
    """The measures of one run; `way` "base" trains nothing."""
    if way in PICKED:
        pairs = picked_pairs(data, model, way, count, draw)
    else:
        pairs = data.labelled.sample(count, random_state=draw)
    if way in OTHERS:
        encode = train_there(model, pairs, way, draw)
    else:
        # only what was encoded before is taken from the cache: checkpoints of all runs would take many GB
        encoder = load_encoder(model, max_length=MAX_LENGTH, cache=CACHE if way == "base" else None)
        if way != "base":
            settings = replace(OWN.get(way, OWN["graded pairs"]), seed=draw)
            fine_tune(encoder, data.training, settings, pairs=pairs)
        encode = partial(encoder.encode, progress=False)
    return {"measures": data.measure(encode)}


def picked_pairs(data: SportData, model: str, way: str, count: int, draw: int) -> pd.DataFrame:
    """Pairs of training sentences, proposed or random, with the grades that their facts give them."""
    told = data.told.set_index("sentence")
    if way == "random pairs":
        shuffled = np.random.default_rng(draw).permutation(data.training)[: 2 * count]
        pairs = pd.DataFrame({"sentence1": shuffled[:count], "sentence2": shuffled[count:]})
    else:
        base = load_encoder(model, max_length=MAX_LENGTH, cache=CACHE)
        pairs = propose_pairs(data.training, base.encode(data.training, progress=False), count, draw)
    grades = [grade_of(told.loc[one], told.loc[two]) for one, two in zip(pairs["sentence1"], pairs["sentence2"])]
    return pairs.assign(grade=grades, relatedness=np.array(grades) / 4)


def grade_of(one: pd.Series, other: pd.Series) -> int:
    """As `src.sentences` defines it: 4 same facts, 3 one differs, 2 same kind of event, 1 same sport, 0 another."""
    if one["sport"] != other["sport"] or one["event"] != other["event"]:
        return int(one["sport"] == other["sport"])
    facts, others = json.loads(one["facts"]), json.loads(other["facts"])
    return max(2, 4 - sum(facts[slot] != others[slot] for slot in facts))


def train_there(model: str, pairs: pd.DataFrame, loss: str, seed: int) -> Encode:
    """sentence-transformers' trainer, with the steps, the batches and the learning rate of `graded_pairs`."""
    settings, (weights, _, _) = OWN["graded pairs"], find_weights(model, ROOT / "models")
    tuned = SentenceTransformer(str(Path(weights).parent))
    tuned.max_seq_length = MAX_LENGTH
    columns = {"sentence1": pairs["sentence1"], "sentence2": pairs["sentence2"], "score": pairs["relatedness"]}
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            folder, max_steps=settings.pair_steps, per_device_train_batch_size=min(PAIR_BATCH, len(pairs)), seed=seed,
            learning_rate=settings.rate, warmup_steps=settings.pair_steps // 10, bf16=settings.bf16,
            lr_scheduler_type="constant_with_warmup", save_strategy="no", logging_strategy="no", report_to="none",
            disable_tqdm=True, use_cpu=not torch.cuda.is_available(),
        )  # fmt: skip
        dataset = Dataset.from_dict({name: column.tolist() for name, column in columns.items()})
        trainer = SentenceTransformerTrainer(tuned, arguments, dataset, loss=OTHERS[loss](tuned))
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return lambda texts: tuned.encode(texts, normalize_embeddings=True, show_progress_bar=False)


def grid(model: str, draws: Sequence[int]) -> list[tuple]:
    runs = [(way, count) for way, counts in WAYS.items() for count in counts]
    return [(model, "base", 0, 0), *((model, *run, draw) for draw, run in product(draws, runs))]


def write_figure(model: str, lines: list[dict]) -> None:
    """Each measure against the number of pairs: means of the draws, and from the lowest to the highest."""
    table = pd.DataFrame(line for line in lines if line["model"] == model and "measures" in line)
    by_way = {way: table[table["way"] == way].groupby("pairs")["measures"] for way in ("base", *WAYS)}
    numbers = {
        measure: {
            way: {n: mean_and_range([m[measure] for m in runs]) for n, runs in by_count}
            for way, by_count in by_way.items()
            if len(by_count)
        }
        for measure in SHOWN
    }
    figure, axes = plt.subplots(2, 3, figsize=(10, 6.5), dpi=100, layout="constrained")
    for axis, measure in zip(axes.flat, DRAWN):
        label_curves(axis, numbers[measure])
        axis.set_title(plots.label_of(measure), fontsize="medium")
        axis.set_xlabel("graded pairs")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    draws = {way: runs["pairs"].value_counts().to_dict() for way, runs in table.groupby("way")}
    most = table["draw"].nunique()
    figure.suptitle(f"{model}, test split: what graded pairs buy, {most} draws of pairs", fontsize="medium")
    settings = {"model": model, "draws": draws, "device": sorted(set(table["device"])), "seed": "the draw"}
    settings |= {"train_sentences": TRAINED_ON, "judging pairs": JUDGING}
    plots.save_figure(figure, FIGURES, "label_curve" if model == MODEL else f"label_curve_{model}", settings, numbers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--draws", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--part", default="1/1", help=PART_HELP)
    options = parser.parse_args()
    keys = ("model", "way", "pairs", "draw")
    done = [tuple(line[key] for key in keys) for line in read_lines(RESULTS)]
    missing = runs_to_do(grid(options.model, options.draws), options.part, done)
    data = SportData("test") if missing else None
    for wanted in missing:
        append_run(RESULTS, dict(zip(keys, wanted)), partial(run, data, *wanted))
    if options.part.endswith("/1"):
        write_figure(options.model, read_lines(RESULTS))


if __name__ == "__main__":
    main()
