"""Training and encoding against sentence-transformers doing the same work, and memory against batch size, in one run.

python -m benchmarks.training [--sentences 1536] [--turns 5]

Ways take turns in one process, so that whatever else the machine does slows all of them alike; a turn is a seed, and
ratios are medians of each turn's. The other trainer has the same weights, sentences, batches, maximum length, warm-up
and optimizer, and learns from identical pairs with its MultipleNegativesRankingLoss, which is SimCSE's loss. Writes
figures/training_benchmark.png and .json; on a GPU, where batches of 512 are compared as well, training_benchmark_gpu.
"""

import argparse
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from transformers import PrinterCallback

from benchmarks.pairwise import embeddings, peak, seconds
from experiments import MAX_LENGTH, MODEL, SportData
from src import plots
from src.encoder import load_encoder
from src.objectives import make_objective
from src.presets import find_weights
from src.quality import FACTS, TOPIC, order
from src.records import ROOT
from src.settings import TrainingSettings
from src.similarity import Encode, cosines_of_pairs, pairwise_distribution
from src.training import batch_loss, fine_tune

SETTINGS = TrainingSettings(objective="simcse")
PRECISIONS = ("fp32", "bf16") if SETTINGS.bf16 else ("fp32",)
GPU = torch.cuda.is_available()
DEVICE = torch.cuda.get_device_name() if GPU else f"{os.cpu_count()} cores"
COMPARED = (64, 512) if GPU else (64,)  # batch sizes
COUNTED = (20_000, 100_000)  # rows of which a GPU counts all pairs
BATCHES = (64, 128, 256, 512)
Turns = dict[str, list[float]]  # a way's values, one a turn


def train_here(sentences: list[str], settings: TrainingSettings) -> tuple[float, Encode]:
    """Seconds, and how the trained model encodes."""
    encoder = load_encoder(MODEL, max_length=MAX_LENGTH)
    start = time.perf_counter()
    fine_tune(encoder, sentences, settings)
    return time.perf_counter() - start, lambda texts: encoder.encode(texts, progress=False)


def train_there(sentences: list[str], settings: TrainingSettings) -> tuple[float, Encode]:
    model = other_library()
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            folder, num_train_epochs=1, per_device_train_batch_size=settings.batch_size, seed=settings.seed,
            learning_rate=settings.rate, lr_scheduler_type="constant_with_warmup", bf16=settings.bf16,
            warmup_steps=-(-len(sentences) // settings.batch_size // 10), save_strategy="no", disable_tqdm=True,
            use_cpu=not GPU, logging_strategy="no", report_to="none", dataloader_drop_last=True,
        )  # fmt: skip
        start = time.perf_counter()
        trainer = SentenceTransformerTrainer(
            model, arguments, Dataset.from_dict({"anchor": sentences, "positive": sentences}),
            loss=MultipleNegativesRankingLoss(model, scale=1 / settings.temperature),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        taken = time.perf_counter() - start
    return taken, lambda texts: model.encode(texts, normalize_embeddings=True, show_progress_bar=False)


def other_library() -> SentenceTransformer:
    weights, _, _ = find_weights(MODEL, ROOT / "models")
    model = SentenceTransformer(str(Path(weights).parent))
    model.max_seq_length = MAX_LENGTH
    return model


def memory(batch_size: int, gradient_caching: bool) -> float:
    """GB at the peak of the second step, beside what is held before (on a GPU, of its memory); fp32."""
    encoder = load_encoder(MODEL, max_length=MAX_LENGTH)
    objective = make_objective(encoder, SportData("validation").training[: max(BATCHES)], SETTINGS)
    settings = replace(SETTINGS, gradient_caching=gradient_caching)
    optimizer = torch.optim.AdamW(encoder.model.parameters(), 1e-5)
    encoder.model.train()

    def step(rows: int) -> None:
        batch_loss(encoder, replace(objective, batch_size=rows), 0, settings).backward()
        optimizer.step()
        optimizer.zero_grad()

    step(4)
    if not GPU:
        return peak(lambda: step(batch_size))
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    step(batch_size)
    return (torch.cuda.max_memory_allocated() - held) / 1e9


def memory_by_batch_size() -> dict[str, dict[int, float]]:
    memories = {"plain": {}, "gradient caching": {}}
    for name, size in product(memories, BATCHES):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:  # whose peak is its own
            memories[name][size] = process.submit(memory, size, name != "plain").result()
        print(f"batch {size}, {name}: {memories[name][size]:.2f} GB", flush=True)
    return memories


def compare_training(
    sentences: list[str], corpus: pd.DataFrame, pairs: pd.DataFrame, kinds: dict[str, TrainingSettings], turns: int
) -> tuple[Turns, dict[str, Turns]]:
    """Seconds by way and turn, and what was learned: a few measures of each trained model."""
    ways = {"this repository": train_here, "sentence-transformers": train_there}
    if GPU:  # which loads its kernels when they are first called
        for settings, train in product(kinds.values(), ways.values()):
            train(sentences[:1024], settings)
    taken, learned = {}, {}
    for turn, (kind, settings), (way, train) in product(range(turns), kinds.items(), ways.items()):
        time_taken, encode = train(sentences, replace(settings, seed=turn))
        cosines, grades = cosines_of_pairs(encode, pairs), pairs["grade"].to_numpy()
        measures = {
            "width": pairwise_distribution(encode(corpus["sentence"].tolist())).width,
            "topic order": order(cosines, grades, TOPIC), "fact order": order(cosines, grades, FACTS),
        }  # fmt: skip
        taken.setdefault(f"{way}, {kind}", []).append(time_taken)
        for measure, value in measures.items():
            learned.setdefault(f"{way}, {kind}", {}).setdefault(measure, []).append(float(value))
        print(f"{way}, {kind}, seed {turn}: {time_taken:.1f} s", measures, flush=True)
    return taken, learned


def compare_encoding(sentences: list[str], turns: int) -> tuple[Turns, float]:
    """Seconds by way and turn, and the largest difference between the two libraries' vectors."""
    encoder, model = load_encoder(MODEL, max_length=MAX_LENGTH), other_library()
    ways = {
        "this repository": lambda: encoder.encode(sentences, progress=False),
        "sentence-transformers": lambda: model.encode(sentences, normalize_embeddings=True),
        "sentence-transformers, batch 64": lambda: model.encode(sentences, batch_size=64, normalize_embeddings=True),
    }
    taken, vectors = {name: [] for name in ways}, {}
    for turn in range(turns + 1):  # one to warm up
        for name, way in ways.items():
            start = time.perf_counter()
            vectors[name] = way()
            taken[name] += [time.perf_counter() - start] * (turn > 0)
    first, second, _ = vectors.values()
    return taken, float(np.abs(first - second).max())


def spread(values: list[float]) -> tuple[float, float, float]:
    """Median, lowest and highest."""
    return float(np.median(values)), min(values), max(values)


def ratios(training: Turns, encoding: Turns, kinds: dict) -> dict[str, tuple[float, float, float]]:
    """How many times as fast this repository is: median, lowest and highest of the turns."""

    def ratio(there: list[float], here: list[float]) -> tuple[float, float, float]:
        return spread([other / own for other, own in zip(there, here)])

    compared = {
        f"training, {kind}": ratio(training[f"sentence-transformers, {kind}"], training[f"this repository, {kind}"])
        for kind in kinds
    }
    for name in list(encoding)[1:]:
        compared[f"encoding, against {name}"] = ratio(encoding[name], encoding["this repository"])
    if "bf16" in kinds:
        fp32, bf16 = training["sentence-transformers, fp32"], training["this repository, bf16"]
        compared["training, bf16 against their fp32"] = ratio(fp32, bf16)
    return compared


def count_all_pairs() -> dict[int, float]:
    """Seconds to count all cosines on the GPU, the best of three."""
    rows, exact = embeddings(max(COUNTED), 384), partial(pairwise_distribution, sampled_pairs=0)
    return {n: min(seconds(exact, rows[:n]) for _ in range(3)) for n in COUNTED}


def draw_figure(rates: Turns, encoded: Turns, memories: dict, title: str) -> plt.Figure:
    figure, axes = plt.subplots(1, 3, figsize=(13, 2 + 0.3 * len(rates)), dpi=100, layout="constrained")
    for axis, turns, label in ((axes[0], rates, "training"), (axes[1], encoded, "encoding")):
        middle, low, high = np.array([spread(values) for values in turns.values()]).T
        colours = [plots.COLOURS[int("sentence-transformers" in name)] for name in turns]
        bars = axis.barh(list(turns), middle, xerr=(middle - low, high - middle), color=colours, capsize=3)
        axis.bar_label(bars, [f"  {value:.0f}" for value in middle])
        axis.set(xlabel=f"{label}, sentences/s")
        axis.margins(x=0.2)
        axis.invert_yaxis()
    for colour, (name, values) in zip(plots.COLOURS, memories.items()):
        axes[2].plot(list(values), list(values.values()), "o-", color=colour, label=name)
    axes[2].set(xlabel="batch size, sentences", ylabel="GB at the peak of a step", xscale="log")
    axes[2].set_xticks(BATCHES, [str(size) for size in BATCHES])
    axes[2].minorticks_off()
    axes[2].legend(frameon=False)
    figure.suptitle(title, fontsize="medium")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=1536)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    data = SportData("validation")
    sentences, corpus = data.training[: options.sentences], data.sentences
    pairs = data.pairs[data.pairs["kind"] == "balanced"].reset_index(drop=True)
    kinds = {
        f"{precision}{f', batches of {size}' * GPU}": replace(SETTINGS, precision=precision, batch_size=size)
        for size, precision in product(COMPARED, PRECISIONS)
    }
    memories, load = memory_by_batch_size(), [os.getloadavg()[0]]
    training, learned = compare_training(sentences, corpus, pairs, kinds, options.turns)
    encoding, difference = compare_encoding(sentences, options.turns)
    load.append(os.getloadavg()[0])
    compared = ratios(training, encoding, kinds)
    rates, encoded = (
        {name: [len(sentences) / value for value in values] for name, values in turns.items()}
        for turns in (training, encoding)
    )
    numbers = {
        "times as fast: median, lowest, highest": compared, "training, sentences per second": rates,
        "encoding, sentences per second": encoded, "largest difference of vectors": difference,
        "gigabytes": memories, "learned": learned,
    } | ({"seconds for all pairs": count_all_pairs()} if GPU else {})  # fmt: skip
    for name, (middle, low, high) in compared.items():
        print(f"{name}: {middle:.2f} times as fast ({low:.2f} to {high:.2f})")
    print(f"largest difference between encoded vectors: {difference:.1e}")
    write_figure(numbers, sentences, options.turns, load)


def write_figure(numbers: dict, sentences: list[str], turns: int, load: list[float]) -> None:
    tokenized = load_encoder(MODEL, max_length=MAX_LENGTH).tokenize(sentences)
    tokens = float(np.mean([len(row["input_ids"]) for row in tokenized]))
    settings = {
        "model": MODEL, "sentences": len(sentences), "tokens a sentence": tokens, "turns": turns,
        "batch_size": COMPARED, "max_length": MAX_LENGTH, "seed": "the turn", "load": load, "device": DEVICE,
        "cores": os.cpu_count(), "threads": torch.get_num_threads(),
    }  # fmt: skip
    title = (
        f"{MODEL}, {len(sentences):,} sentences of {tokens:.0f} tokens{', batches of 64' * (not GPU)}, {DEVICE}; "
        f"median and range of {turns} turns"
    )
    rates, encoded = (numbers[f"{work}, sentences per second"] for work in ("training", "encoding"))
    figure = draw_figure(rates, encoded, numbers["gigabytes"], title)
    plots.save_figure(figure, ROOT / "figures", "training_benchmark" + "_gpu" * GPU, settings, numbers)


if __name__ == "__main__":
    main()
