"""What temperature, epochs, and the own objective's mix and stretch do: one JSON line a run, resumable.

python -m experiments.study [--plan simcse own ...] [--part 1/2]

Budget: all runs take about three hours of one core. A run that is in the file is not done again. `--part 1/2` and
`--part 2/2`, each with OMP_NUM_THREADS=1, share the runs between two processes, which on two cores is faster than one
with two threads (`make study`). All is measured on the **validation** split: what is chosen by it may be judged on the
test split once.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from datasets import Dataset

from run_notebooks import ROOT
from src.corpus import draw_sentences, library_versions, load_pairs, load_sentences
from src.encoder import Encoder, load_encoder
from src.losses import take_apart
from src.postprocessing import Centering, SpectralScaling
from src.quality import ALL_GRADES, order
from src.scorecard import lookup, order_without_labels, score, swapped_pairs
from src.sentences import graded_pairs, triplets
from src.similarity import paired_cosines
from src.training import TrainingSettings, fine_tune

RESULTS = ROOT / "experiments" / "study.jsonl"
MODEL, MAX_LENGTH = "all-MiniLM-L6-v2", 64
TRAINED_ON, LOOKED_AT, FITTED_ON, VIEWS, WATCHED = 3_072, 1_000, 600, 256, 512  # sentences
TEMPERATURES, SEEDS, CHOSEN = (0.05, 0.1, 0.2, 0.4, 0.8), (0, 1, 2), TrainingSettings(objective="topic_and_facts")
PLANS = {
    "simcse": [TrainingSettings(3, t, seed=s) for s, t in product(SEEDS, TEMPERATURES)],
    "own": [replace(CHOSEN, epochs=3, seed=s) for s in SEEDS],
    "mix": [replace(CHOSEN, facts=f) for f in (0.6, 0.65, 0.75, 0.8)],
    "stretch": [replace(CHOSEN, stretch=s) for s in (1.0, 1.5, 2.0, 3.0, 4.0)],
    "labels": [replace(CHOSEN, objective="supervised_simcse", temperature=t) for t in (0.05, 0.4)],
    "rate and batch": [
        replace(settings, **changed)
        for settings in (CHOSEN, TrainingSettings(temperature=0.4))
        for changed in ({"learning_rate": 1e-5}, {"learning_rate": 1e-4}, {"batch_size": 32}, {"batch_size": 128})
    ],
}
ON_TOP = {"as it is": None, "centring": Centering()} | {
    f"spectral, p = {p}": SpectralScaling(p) for p in (0.125, 0.25, 0.5)
}


def draw(split: str, train_sentences: int, looked_at: int) -> tuple[list[str], Dataset, pd.DataFrame]:
    """Training sentences, sentences of the split to look at, and its graded pairs: drawn as in `fine_tune.ipynb`."""
    corpus = load_sentences(ROOT / "data" / "sport_sentences.csv")
    splits, rng = np.array(corpus["split"]), np.random.default_rng(0)
    training = draw_sentences(corpus, train_sentences, rng)
    corpus = corpus.select(rng.permutation(np.flatnonzero(splits == split))[:looked_at])
    pairs = load_pairs(ROOT / "data" / "graded_pairs.csv").to_pandas()
    return training, corpus, pairs[pairs["split"] == split].reset_index(drop=True)


class Truth:
    """What every model of the study is measured on, and how the base model sees it."""

    def __init__(self):
        self.training, self.corpus, pairs = draw("validation", TRAINED_ON, LOOKED_AT)
        self.pairs = pairs[pairs["kind"] != "adversarial"].reset_index(drop=True)
        control = graded_pairs("test", 40, 0, ROOT / "data" / "control").to_pandas()
        self.control = control[control["kind"] == "balanced"].reset_index(drop=True)
        self.sentences = [
            *self.corpus["sentence"], *self.pairs["sentence1"], *self.pairs["sentence2"],
            *self.control["sentence1"], *self.control["sentence2"],
        ]  # fmt: skip
        self.whole = load_sentences(ROOT / "data" / "sport_sentences.csv")
        self.watched = draw_sentences(self.whole, WATCHED, np.random.default_rng(1), "validation")
        self.base = self.parts = self.swapped = None
        encoder = load_encoder(MODEL, max_length=MAX_LENGTH)
        self.of_base, self.sha256 = self.measure(encoder), encoder.sha256  # first: all others are held against it

    def measure(self, encoder: Encoder) -> dict[str, dict[str, float]]:
        """The measures of the encoder as it is, and with each training-free transform on top."""
        embeddings = encoder.encode(self.sentences, progress=False)
        fitted_on = encoder.encode(self.training[:FITTED_ON], progress=False)
        self.base = embeddings if self.base is None else self.base
        base, measures = lookup(self.sentences, self.base), {}
        for name, transform in ON_TOP.items():
            rows = transform.fit(fitted_on).transform(embeddings) if transform else embeddings
            of = lookup(self.sentences, rows)
            measures[name] = score(of, self.corpus, self.pairs, name, base, replicates=1).values
            cosines = paired_cosines(*(of(self.control[side].tolist()) for side in ("sentence1", "sentence2")))
            measures[name]["general_language"] = order(cosines, self.control["grade"].to_numpy(), ALL_GRADES)
        measures["as it is"]["view_retrieval"] = view_retrieval(encoder, self.corpus["sentence"][:VIEWS])
        if self.swapped is None:
            self.swapped = swapped_pairs(self.watched, encoder.encode)
        for measure, value in order_without_labels(encoder, self.swapped).items():
            measures["as it is"][f"{measure}_without_labels"] = value
        return measures


def view_retrieval(encoder: Encoder, sentences: Sequence[str]) -> float:
    """Share of the sentences whose second dropout view is nearer to the first than the views of all others are, in
    [0, 1]: what SimCSE trains for, on sentences that need not have been trained on, without a label."""
    tokens = encoder.tokenize(sentences)
    encoder.model.train()
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = (
            torch.cat([F.normalize(encoder.embed(batch), dim=-1) for _, batch in encoder.batches(tokens, 64)])
            for _ in range(2)
        )
    encoder.model.eval()
    return float((first @ second.T).argmax(1).eq(torch.arange(len(first), device=first.device)).float().mean())


def run(truth: Truth, settings: TrainingSettings) -> dict:
    encoder = load_encoder(MODEL, max_length=MAX_LENGTH)
    start, epochs = time.monotonic(), {}
    labelled = settings.objective == "supervised_simcse"
    sentences = triplets("train", TRAINED_ON) if labelled else truth.training
    if settings.objective == "topic_and_facts" and truth.parts is None:  # the same for every run
        truth.parts = take_apart(truth.training, encoder.encode)
    losses = fine_tune(
        encoder, sentences, settings, lambda epoch: epochs.update({epoch: truth.measure(encoder)}), truth.parts
    )
    steps = len(losses) // settings.epochs
    return {
        "settings": asdict(settings),
        "bf16": settings.bf16,
        "losses": [float(np.mean(losses[epoch * steps : (epoch + 1) * steps])) for epoch in range(settings.epochs)],
        "epochs": epochs,
        "minutes": (time.monotonic() - start) / 60,
        "train_sentences": len(sentences),
        "sha256": encoder.sha256,
    }


def append(file: Path, line: dict) -> None:
    """In one write, so that two processes can share the file and a kill leaves no half line."""
    line |= {"model": MODEL, "versions": library_versions()}
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(descriptor, (json.dumps(line) + "\n").encode())
    os.close(descriptor)


def read(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def results() -> list[dict]:
    """The runs in the file, the base model's line first."""
    return sorted(read(RESULTS), key=lambda line: line["settings"] is not None)


def done(settings: TrainingSettings) -> bool:
    return any(line["settings"] and TrainingSettings(**line["settings"]) == settings for line in results())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plan", nargs="+", choices=PLANS, default=list(PLANS))
    parser.add_argument("--part", default="1/1", help="which of how many processes this is")
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    grid = [settings for plan in options.plan for settings in PLANS[plan]][part - 1 :: parts]
    if all(map(done, grid)):
        return
    truth = Truth()
    if part == 1 and not any(line["settings"] is None for line in results()):
        of_base = {"settings": None, "losses": [], "epochs": {0: truth.of_base}, "minutes": 0}
        append(RESULTS, of_base | {"sha256": truth.sha256})
    for settings in grid:
        if done(settings):
            continue
        append(RESULTS, line := run(truth, settings))
        last = line["epochs"][settings.epochs]["as it is"]
        print(
            f"{settings}: {line['minutes']:.1f} minutes, width {last['width']:.3f}, topic order "
            f"{last['topic_order']:.3f}, fact order {last['fact_order']:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
