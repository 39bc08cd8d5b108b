"""Time and memory of `pairwise_distribution` against the bare products and the usual way, in one run.

python -m benchmarks.pairwise [rows] [dimensions]
"""

import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np


def embeddings(n: int, dim: int) -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal((n, dim)).astype(np.float32) + 0.3
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def half_product(x: np.ndarray) -> None:
    """The matrix products of all pairs i < j in blocks, and nothing done with them: the floor."""
    for i in range(0, len(x), 1024):
        for j in range(i, len(x), 1024):
            x[i : i + 1024] @ x[j : j + 1024].T


def ours(x: np.ndarray) -> None:
    from src.similarity import pairwise_distribution

    pairwise_distribution(x)


def scikit_learn(x: np.ndarray) -> None:
    from sklearn.metrics.pairwise import cosine_similarity

    np.histogram(cosine_similarity(x)[np.triu_indices(len(x), 1)], bins=4000, range=(-1, 1))


def measure(way, n: int, dim: int, repeats: int) -> tuple[float, float]:
    """Best seconds of a few runs in a fresh process, and the GB it needed beside the embeddings."""
    x = embeddings(n, dim)
    way(x[:2000])  # imports and thread pools
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        way(x)
        seconds.append(time.perf_counter() - start)
    return min(seconds), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6


if __name__ == "__main__":
    n, dim = (int(argument) for argument in (*sys.argv[1:], "20000", "384")[:2])
    figures = {}
    for way, repeats in ((half_product, 5), (ours, 5), (scikit_learn, 2), (half_product, 5)):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            figures[way.__name__] = process.submit(measure, way, n, dim, repeats).result()
        print(
            f"{way.__name__:13} {figures[way.__name__][0]:6.2f} s, {figures[way.__name__][1]:.2f} GB more", flush=True
        )
    product, own, naive = (figures[name][0] for name in ("half_product", "ours", "scikit_learn"))
    print(
        f"{n:,} x {dim}: {own / product:.2f} times the bare product, {naive / own:.1f} times faster than scikit-learn"
    )
