"""Time and memory of `pairwise_distribution` against the bare products and the usual way, in one run.

python -m benchmarks.pairwise [rows] [dimensions]

Times are taken in turns in one process, so that whatever else the machine does slows all of them alike, and ratios are
those of the medians. Memory is the peak beside the embeddings, each way in a fresh process. Writes
figures/pairwise_benchmark.png and .json.
"""

import argparse
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.metrics.pairwise import cosine_similarity

from src import plots
from src.records import ROOT
from src.similarity import pairwise_distribution, within_groups

TURNS, NAIVE_TURNS = 7, 3  # the usual way takes ten times as long


def embeddings(n: int, dim: int) -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal((n, dim)).astype(np.float32) + 0.3
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def bare_product(x: np.ndarray) -> None:
    """The matrix products of all pairs i < j in blocks, and nothing done with them: the floor."""
    for i in range(0, len(x), 1024):
        for j in range(i, len(x), 1024):
            x[i : i + 1024] @ x[j : j + 1024].T


def scikit_learn(x: np.ndarray) -> None:
    np.histogram(cosine_similarity(x)[np.triu_indices(len(x), 1)], bins=4000, range=(-1, 1))


def in_groups(x: np.ndarray) -> None:
    within_groups(x, np.random.default_rng(0).integers(0, 24, len(x)))


def seconds(way: Callable, x: np.ndarray) -> float:
    start = time.perf_counter()
    way(x)
    return time.perf_counter() - start


def memory(way: Callable, n: int, dim: int) -> float:
    """GB at the peak beside the embeddings, once imports and thread pools are there."""
    x = embeddings(n, dim)
    way(x[:2000])
    return peak(lambda: way(x))


def peak(work: Callable) -> float:
    """GB that the work needs at its peak beside what is held before. Linux only."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is forgotten, and starts from what is held now
    before = _status("VmHWM")
    work()
    return _status("VmHWM") - before


def _status(key: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1e6


def draw(times: dict[str, list[float]], peaks: dict[str, float], title: str) -> plt.Figure:
    figure, axes = plt.subplots(1, 2, figsize=(9, 2.6), dpi=100, sharey=True, layout="constrained")
    names = list(times)
    for axis, values, unit in (
        (axes[0], [np.median(times[name]) for name in names], "s"),
        (axes[1], list(peaks.values()), "GB"),
    ):
        bars = axis.barh(names, values, color=plots.COLOURS[: len(names)])
        axis.bar_label(bars, [f" {value:.2f} {unit}" for value in values])
        axis.margins(x=0.2)
    axes[0].set(xlabel="seconds, median of the turns")
    axes[1].set(xlabel="GB at the peak beside the embeddings")
    axes[0].invert_yaxis()
    figure.suptitle(title, fontsize="medium")
    return figure


WAYS = {
    "bare products": bare_product, "pairwise_distribution": pairwise_distribution,
    "within_groups, 24 groups": in_groups, "scikit-learn and numpy": scikit_learn,
}  # fmt: skip


def measure_memory(n: int, dim: int) -> dict[str, float]:
    peaks = {}
    for name, way in WAYS.items():
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            peaks[name] = process.submit(memory, way, n, dim).result()
    return peaks


def measure_times(n: int, dim: int) -> dict[str, list[float]]:
    x, times = embeddings(n, dim), {name: [] for name in WAYS}
    for turn in range(-1, TURNS):  # one to warm up
        for name, way in WAYS.items():
            if way is not scikit_learn or 0 <= turn < NAIVE_TURNS:
                taken = seconds(way, x)
                times[name] += [taken] if turn >= 0 else []
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=int, nargs="?", default=20_000)
    parser.add_argument("dimensions", type=int, nargs="?", default=384)
    n, dim = vars(parser.parse_args()).values()
    peaks, load = measure_memory(n, dim), [os.getloadavg()[0]]
    times = measure_times(n, dim)
    load.append(os.getloadavg()[0])
    medians = {name: float(np.median(values)) for name, values in times.items()}
    own = medians["pairwise_distribution"]
    ratios = {
        "times the bare products": own / medians["bare products"],
        "times faster than scikit-learn and numpy": medians["scikit-learn and numpy"] / own,
        "of the whole for 24 groups": medians["within_groups, 24 groups"] / own,
    }
    for name in WAYS:
        print(f"{name:25} {medians[name]:6.2f} s, {peaks[name]:.2f} GB more")
    print(f"{n:,} x {dim}, load of the machine {load[0]:.1f} to {load[1]:.1f}")
    for name, ratio in ratios.items():
        print(f"{ratio:.2f} {name}")
    settings = {
        "rows": n, "dimensions": dim, "seed": 0, "turns": TURNS, "naive_turns": NAIVE_TURNS, "load": load,
        "cores": os.cpu_count(), "threads": torch.get_num_threads(),
    }  # fmt: skip
    figure = draw(times, peaks, f"All pairs of {n:,} embeddings in {dim} dimensions")
    numbers = {"ratios": ratios, "seconds": times, "gigabytes": peaks}
    plots.save_figure(figure, ROOT / "figures", "pairwise_benchmark", settings, numbers)


if __name__ == "__main__":
    main()
