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
from itertools import product
from multiprocessing import get_context

import matplotlib

matplotlib.use("Agg")  # no window

import matplotlib.pyplot as plt
import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from transformers import PrinterCallback

from benchmarks.pairwise import embeddings, peak, seconds
from experiments.study import MAX_LENGTH, MODEL, draw
from run_notebooks import ROOT
from src import plots
from src.encoder import PRESETS, _preset_folder, load_encoder
from src.quality import FACTS, TOPIC, order
from src.similarity import paired_cosines, pairwise_distribution
from src.training import Objective, TrainingSettings, fine_tune

SETTINGS = TrainingSettings()  # simcse, the paper's values
PRECISIONS = ("fp32", "bf16") if SETTINGS.bf16 else ("fp32",)
GPU = torch.cuda.is_available()
DEVICE = torch.cuda.get_device_name() if GPU else f"{os.cpu_count()} cores"
COMPARED = (64, 512) if GPU else (64,)  # batch sizes
COUNTED = (20_000, 100_000)  # rows of which a GPU counts all pairs
BATCHES, LOOKED_AT = (64, 128, 256, 512), 1_000


def ours(sentences: list[str], settings: TrainingSettings):
    encoder = load_encoder(MODEL, max_length=MAX_LENGTH)
    start = time.perf_counter()
    fine_tune(encoder, sentences, settings)
    return time.perf_counter() - start, lambda texts: encoder.encode(texts, progress=False)


def theirs(sentences: list[str], settings: TrainingSettings):
    model = other_library()
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            folder, num_train_epochs=1, per_device_train_batch_size=settings.batch_size, seed=settings.seed,
            learning_rate=settings.learning_rate, lr_scheduler_type="constant_with_warmup", bf16=settings.bf16,
            warmup_steps=-(-len(sentences) // settings.batch_size // 10), save_strategy="no", disable_tqdm=True,
            use_cpu=not GPU, logging_strategy="no", report_to="none",
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
    model = SentenceTransformer(str(_preset_folder(PRESETS[MODEL], ROOT / "models")))
    model.max_seq_length = MAX_LENGTH
    return model


def memory(batch_size: int, caching: bool, sentences: list[str]) -> float:
    """GB at the peak of the second step, beside what is held before (on a GPU, of its memory); fp32."""
    encoder = load_encoder(MODEL, max_length=MAX_LENGTH)
    tokens = encoder.tokenize(sentences)
    objective = Objective(encoder, replace(SETTINGS, gradient_caching=caching), [tokens, tokens])
    objective.train()
    optimizer = torch.optim.AdamW(objective.parameters(), 1e-5)

    def step(rows: int) -> None:
        objective(torch.arange(rows))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()

    step(4)
    if not GPU:
        return peak(lambda: step(batch_size))
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    step(batch_size)
    return (torch.cuda.max_memory_allocated() - held) / 1e9


def encoding(sentences: list[str], turns: int) -> tuple[dict[str, list[float]], float]:
    """Seconds by way and turn, and the largest difference between the two libraries' vectors."""
    encoder, model = load_encoder(MODEL, max_length=MAX_LENGTH), other_library()
    ways = {
        "this repository": lambda: encoder.encode(sentences, progress=False),
        "sentence-transformers": lambda: model.encode(sentences, normalize_embeddings=True),
        "sentence-transformers, batch 64": lambda: model.encode(sentences, batch_size=64, normalize_embeddings=True),
    }
    seconds, vectors = {name: [] for name in ways}, {}
    for turn in range(turns + 1):  # one to warm up
        for name, way in ways.items():
            start = time.perf_counter()
            vectors[name] = way()
            seconds[name] += [time.perf_counter() - start] * (turn > 0)
    first, second, _ = vectors.values()
    return seconds, float(np.abs(first - second).max())


def spread(values: list[float]) -> tuple[float, float, float]:
    """Median, lowest and highest."""
    return float(np.median(values)), min(values), max(values)


def draw_figure(rates: dict, encoded: dict, memories: dict, title: str) -> plt.Figure:
    figure, axes = plt.subplots(1, 3, figsize=(13, 2 + 0.3 * len(rates)), dpi=100, layout="constrained")
    for axis, of, label in ((axes[0], rates, "training"), (axes[1], encoded, "encoding")):
        middle, low, high = np.array([spread(values) for values in of.values()]).T
        colours = [plots.COLOURS[int("sentence-transformers" in name)] for name in of]
        bars = axis.barh(list(of), middle, xerr=(middle - low, high - middle), color=colours, capsize=3)
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
    sentences, corpus, pairs = draw("validation", options.sentences, LOOKED_AT)
    pairs = pairs[pairs["kind"] == "balanced"].sample(600, random_state=0)
    tokens = load_encoder(MODEL, max_length=MAX_LENGTH).tokenize(sentences)
    per_sentence = np.mean([len(row["input_ids"]) for row in tokens])

    memories = {}  # GB, by batch size
    for name, caching in (("plain", False), ("gradient caching", True)):
        for size in BATCHES:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:  # whose peak is its own
                used = process.submit(memory, size, caching, draw("validation", 512, 1)[0]).result()
            memories.setdefault(name, {})[size] = used
            print(f"batch {size}, {name}: {used:.2f} GB", flush=True)

    load, ways = [os.getloadavg()[0]], {"this repository": ours, "sentence-transformers": theirs}
    taken, learned = {}, {}
    kinds = {
        f"{precision}{f', batches of {size}' * GPU}": replace(SETTINGS, precision=precision, batch_size=size)
        for size, precision in product(COMPARED, PRECISIONS)
    }
    if GPU:  # which loads its kernels when they are first called
        for of_kind, way in product(kinds.values(), ways.values()):
            way(sentences[:1024], of_kind)
    for turn in range(options.turns):
        for kind, of_kind in kinds.items():
            for name, way in ways.items():
                time_taken, encode = way(sentences, replace(of_kind, seed=turn))
                cosines = paired_cosines(encode(pairs["sentence1"].tolist()), encode(pairs["sentence2"].tolist()))
                grades = pairs["grade"].to_numpy()
                measures = {
                    "width": pairwise_distribution(encode(corpus["sentence"][:])).width,
                    "topic order": order(cosines, grades, TOPIC), "fact order": order(cosines, grades, FACTS),
                }  # fmt: skip
                taken.setdefault(f"{name}, {kind}", []).append(time_taken)
                for measure, value in measures.items():
                    learned.setdefault(f"{name}, {kind}", {}).setdefault(measure, []).append(float(value))
                print(f"{name}, {kind}, seed {turn}: {time_taken:.1f} s", measures, flush=True)
    encode_seconds, difference = encoding(sentences, options.turns)
    load.append(os.getloadavg()[0])

    def ratios(of: dict[str, list[float]], slow: str, fast: str) -> tuple[float, float, float]:
        return spread([there / here for there, here in zip(of[slow], of[fast])])

    compared = {
        f"training, {kind}": ratios(taken, f"sentence-transformers, {kind}", f"this repository, {kind}")
        for kind in kinds
    } | {
        f"encoding, against {name}": ratios(encode_seconds, name, "this repository")
        for name in list(encode_seconds)[1:]
    }
    if "bf16" in kinds:
        compared["training, bf16 against their fp32"] = ratios(
            taken, "sentence-transformers, fp32", "this repository, bf16"
        )
    for name, (middle, low, high) in compared.items():
        print(f"{name}: {middle:.2f} times as fast ({low:.2f} to {high:.2f})")
    print(f"largest difference between encoded vectors: {difference:.1e}")
    rates, encoded = (
        {name: [len(sentences) / value for value in values] for name, values in of.items()}
        for of in (taken, encode_seconds)
    )
    settings = {
        "model": MODEL, "sentences": len(sentences), "tokens a sentence": float(per_sentence), "turns": options.turns,
        "batch_size": COMPARED, "max_length": MAX_LENGTH, "seed": "the turn", "load": load, "device": DEVICE,
        "cores": os.cpu_count(), "threads": torch.get_num_threads(),
    }  # fmt: skip
    numbers = {
        "times as fast: median, lowest, highest": compared, "training, sentences per second": rates,
        "encoding, sentences per second": encoded, "largest difference of vectors": difference,
        "gigabytes": memories, "learned": learned,
    }  # fmt: skip
    if GPU:
        rows = embeddings(max(COUNTED), 384)
        numbers["seconds for all pairs"] = counted = {}
        for n in COUNTED:
            counted[n] = min(seconds(lambda x: pairwise_distribution(x, sampled_pairs=0), rows[:n]) for _ in range(3))
            print(f"all pairs of {n:,}: {counted[n]:.2f} s", flush=True)
    title = (
        f"{MODEL}, {len(sentences):,} sentences of {per_sentence:.0f} tokens{', batches of 64' * (not GPU)}, {DEVICE}; "
        f"median and range of {options.turns} turns"
    )
    figure, name = draw_figure(rates, encoded, memories, title), "training_benchmark" + "_gpu" * GPU
    plots.save_figure(figure, ROOT / "figures", name, settings, numbers)


if __name__ == "__main__":
    main()
