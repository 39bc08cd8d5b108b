"""What temperature and epochs do: unsupervised SimCSE over temperatures and seeds, one JSON line a run, resumable.

python -m experiments.study [--temperatures 0.05 0.1 0.2 0.4 0.8] [--seeds 0 1 2] [--epochs 3] [--part 1/2]

Budget: 15 runs of three epochs take about two hours of one core. A run that is in the file is not done again.
`--part 1/2` and `--part 2/2`, each with OMP_NUM_THREADS=1, share the runs between two processes, which on two cores is
faster than one with two threads (`make study`). Measured on the **validation** split alone: what is chosen here may be
judged on the test split once.
"""

import argparse
import json
import os
import time
from dataclasses import asdict
from itertools import product

import numpy as np

from run_notebooks import ROOT
from src.corpus import library_versions, load_pairs, load_sentences
from src.encoder import Encoder, load_encoder
from src.postprocessing import Centering, SpectralScaling
from src.quality import ALL_GRADES, order
from src.scorecard import lookup, score
from src.sentences import graded_pairs
from src.similarity import paired_cosines
from src.training import TrainingSettings, fine_tune, view_retrieval

RESULTS = ROOT / "experiments" / "study.jsonl"
MODEL, MAX_LENGTH = "all-MiniLM-L6-v2", 64
TRAINED_ON, LOOKED_AT, FITTED_ON, VIEWS = 3_072, 1_000, 600, 256  # sentences
ON_TOP = {"as it is": None, "centring": Centering()} | {
    f"spectral, p = {p}": SpectralScaling(p) for p in (0.125, 0.25, 0.5)
}


class Truth:
    """What every model of the study is measured on, and how the base model sees it."""

    def __init__(self):
        corpus = load_sentences(ROOT / "data" / "sport_sentences.csv")
        split, rng = np.array(corpus["split"]), np.random.default_rng(0)
        self.training = rng.permutation(np.unique(np.array(corpus["sentence"])[split == "train"]))[:TRAINED_ON].tolist()
        self.corpus = corpus.select(rng.permutation(np.flatnonzero(split == "validation"))[:LOOKED_AT])
        pairs = load_pairs(ROOT / "data" / "graded_pairs.csv").to_pandas()
        self.pairs = pairs[(pairs["split"] == "validation") & (pairs["kind"] != "adversarial")].reset_index(drop=True)
        control = graded_pairs("test", 40, 0, ROOT / "data" / "control").to_pandas()
        self.control = control[control["kind"] == "balanced"].reset_index(drop=True)
        self.sentences = [
            *self.corpus["sentence"], *self.pairs["sentence1"], *self.pairs["sentence2"],
            *self.control["sentence1"], *self.control["sentence2"],
        ]  # fmt: skip
        self.base = None

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
        return measures


def run(truth: Truth, settings: TrainingSettings) -> dict:
    encoder = load_encoder(MODEL, max_length=MAX_LENGTH)
    start, epochs = time.monotonic(), {}
    losses = fine_tune(encoder, truth.training, settings, lambda epoch: epochs.update({epoch: truth.measure(encoder)}))
    steps = len(losses) // settings.epochs
    return {
        "settings": asdict(settings),
        "bf16": settings.bf16,
        "losses": [float(np.mean(losses[epoch * steps : (epoch + 1) * steps])) for epoch in range(settings.epochs)],
        "epochs": epochs,
        "minutes": (time.monotonic() - start) / 60,
    }


def record(line: dict, encoder_sha256: str) -> None:
    """Append in one write, so that two processes can share the file and a kill leaves no half line."""
    line |= {"model": MODEL, "sha256": encoder_sha256, "train_sentences": TRAINED_ON, "versions": library_versions()}
    descriptor = os.open(RESULTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(descriptor, (json.dumps(line) + "\n").encode())
    os.close(descriptor)


def results() -> list[dict]:
    """The runs in the file, the base model's line first."""
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() else []
    return sorted(lines, key=lambda line: line["settings"] is not None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.05, 0.1, 0.2, 0.4, 0.8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--part", default="1/1", help="which of how many processes this is")
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    truth, base = Truth(), load_encoder(MODEL, max_length=MAX_LENGTH)
    of_base = truth.measure(base)
    if part == 1 and not any(line["settings"] is None for line in results()):
        record({"settings": None, "losses": [], "epochs": {0: of_base}, "minutes": 0}, base.sha256)
    grid = [TrainingSettings(options.epochs, t, seed=s) for s, t in product(options.seeds, options.temperatures)]
    for number, settings in enumerate(grid):
        if number % parts != part - 1 or any(line["settings"] == asdict(settings) for line in results()):
            continue
        record(line := run(truth, settings), base.sha256)
        last = line["epochs"][settings.epochs]["as it is"]
        print(
            f"temperature {settings.temperature}, seed {settings.seed}: {line['minutes']:.1f} minutes, width "
            f"{last['width']:.3f}, topic order {last['topic_order']:.3f}, fact order {last['fact_order']:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
