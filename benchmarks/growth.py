"""How time and memory grow with the number of sentences, from a thousand to a million, with the fitted exponents.

python -m benchmarks.growth [--most 1000000]

Each stage runs in a fresh process at each size; embeddings are random unit rows, but for encoding itself. What would
take hours is measured as far as `LIMITS` says, and extrapolated by its exponent (dashed). Writes figures/growth.png and
.json.
"""

import argparse
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.pairwise import embeddings, peak
from src import plots
from src.corpus import load_sentences, near_duplicates
from src.encoder import load_encoder
from src.records import ROOT
from src.scoring import score
from src.sentences import generate_sentences
from src.similarity import pairwise_distribution

SIZES = [1_000, 3_162, 10_000, 31_623, 100_000, 316_228, 1_000_000]
DIMENSIONS = 384
LIMITS = {"near-duplicates": 100_000, "encoding": 10_000, "all pairs, exactly": 31_623}
FITTED_FROM = 10_000  # below, what every call costs is a part of it; but three sizes are fitted at least


def measure(stage: str, n: int, corpus: Path) -> tuple[float, float]:
    """Seconds, and GB at the peak beside the input."""
    rows = load_sentences(corpus) if stage != "generation" else None
    sentences = [] if rows is None else rows["sentence"].tolist()
    x = embeddings(n if "pairs" in stage or stage == "scorecard" else 2, DIMENSIONS)
    encoder = load_encoder("all-MiniLM-L6-v2", max_length=64) if stage == "encoding" else None
    work = {
        "generation": lambda: generate_sentences(n),
        "reading": lambda: load_sentences(corpus),
        "near-duplicates": lambda: near_duplicates(sentences),
        "encoding": lambda: encoder.encode(sentences, progress=False),
        "all pairs, exactly": lambda: pairwise_distribution(x, sampled_pairs=0),
        "all pairs, by default": lambda: pairwise_distribution(x),
        "scorecard": lambda: score("random", lambda sentences: x, rows),
    }
    start = time.perf_counter()
    gigabytes = peak(work[stage])
    return time.perf_counter() - start, gigabytes


STAGES = (
    "generation", "reading", "near-duplicates", "encoding", "all pairs, exactly", "all pairs, by default", "scorecard",
)  # fmt: skip


def exponent(sizes: list[int], values: list[float]) -> float:
    first = min(max(0, len(values) - 3), np.searchsorted(sizes, FITTED_FROM))
    return float(np.polyfit(np.log(sizes[first : len(values)]), np.log(values[first:]), 1)[0])


def draw(stages: dict[str, dict], sizes: list[int], title: str) -> plt.Figure:
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.6), dpi=100, layout="constrained")
    for (stage, measured), colour, marker in zip(stages.items(), plots.COLOURS, plots.MARKERS):
        seconds, exponent = measured["seconds"], measured["exponent"]
        n, rest = sizes[: len(seconds)], np.array(sizes[len(seconds) - 1 :])
        axes[0].plot(n, seconds, color=colour, marker=marker, label=f"{stage}: n^{exponent:.2f}")
        axes[0].plot(rest, seconds[-1] * (rest / n[-1]) ** exponent, color=colour, ls="--")
        axes[1].plot(n, np.maximum(measured["gigabytes"], 1e-3), color=colour, marker=marker)
    axes[0].set(xscale="log", yscale="log", xlabel="sentences", ylabel="seconds")
    axes[1].set(
        xscale="log", yscale="log", xlabel="sentences", ylabel="GB at the peak beside the input (0.001: or less)"
    )
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize="small")
    figure.suptitle(f"{title}; dashed: extrapolated", fontsize="medium")
    return figure


def measure_stages(sizes: list[int], folder: Path) -> dict[str, dict]:
    """Seconds and GB of each stage at each size that it is measured at, and the exponent of the seconds."""
    corpora, whole = {n: folder / f"{n}.csv" for n in sizes}, generate_sentences(sizes[-1])
    for n, file in corpora.items():
        whole.head(n).to_csv(file, index=False)
    stages = {}
    for stage in STAGES:
        measured = []
        for n in (n for n in sizes if n <= LIMITS.get(stage, n)):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                measured.append(process.submit(measure, stage, n, corpora[n]).result())
            print(f"{stage:22} {n:9,} {measured[-1][0]:8.2f} s {measured[-1][1]:6.2f} GB", flush=True)
        seconds, gigabytes = map(list, zip(*measured))
        stages[stage] = {"seconds": seconds, "gigabytes": gigabytes, "exponent": exponent(sizes, seconds)}
    return stages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, choices=SIZES[2:], default=SIZES[-1])
    most = parser.parse_args().most
    sizes, load = [n for n in SIZES if n <= most], [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as folder:
        stages = measure_stages(sizes, Path(folder))
    load.append(os.getloadavg()[0])
    settings = {"sizes": sizes, "dimensions": DIMENSIONS, "seed": 0, "load": load, "cores": os.cpu_count()}
    figure = draw(stages, sizes, f"Growth with the number of sentences, {os.cpu_count()} cores")
    plots.save_figure(figure, ROOT / "figures", "growth", settings, stages)


if __name__ == "__main__":
    main()
