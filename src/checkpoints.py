"""What is kept of a training run: a folder named by all that the run depends on, with one file for each state.

`latest.pt` is what training goes on from: weights, optimizer, and the losses so far. `epoch-1.pt`, … are the weights
and losses at the end of each epoch.
"""

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from accelerate import PartialState
from filelock import FileLock, Timeout

from src.encoder import Encoder
from src.objectives import Objective
from src.records import cache_key, output_folder, read_with_checksum, write_with_checksum
from src.settings import TrainingSettings


@contextlib.contextmanager
def run_folder(encoder: Encoder, settings: TrainingSettings, objective: Objective) -> Iterator[Path | None]:
    """Where this run is saved, named by all that it depends on; None without a cache. The folder is locked
    until the `with` block ends."""
    if encoder.cache is None:
        yield None
        return
    # without `epochs`, because a longer run begins like a shorter one, and without other objectives' settings
    used = settings.used() | {"epochs": None, "precision": settings.bf16}
    texts = [[row["input_ids"] for row in view] for view in objective.views]
    key = cache_key(
        "training", used, encoder.model.device.type, PartialState().num_processes, encoder.pooling,
        encoder.weights_checksum(), texts, objective.source,
    )  # fmt: skip
    folder = output_folder(encoder.cache / f"{encoder.name}-{settings.objective}-{key}")
    lock = FileLock(folder / ".lock", timeout=0)
    if PartialState().is_main_process:
        try:
            lock.acquire()
        except Timeout:
            raise BlockingIOError(f"another process trains this very run, in {folder}: wait, or stop it") from None
        for half in folder.glob(".*.pt"):  # left by a process that was killed while it wrote
            half.unlink()
    try:
        yield folder
    finally:
        lock.release()


def save(folder: Path | None, name: str, encoder: Encoder, losses: list[float], optimizer=None) -> None:
    """One file, written whole or not at all: weights, losses, and the optimizer's state where training goes on."""
    if folder and PartialState().is_main_process:
        state = {"model": encoder.model.state_dict(), "losses": losses}
        if optimizer:
            state["optimizer"] = optimizer.state_dict()
        torch.save(state, content := io.BytesIO())
        write_with_checksum(folder / f"{name}.pt", content.getvalue())


def restore(
    folder: Path | None, encoder: Encoder, optimizer, epochs: int, steps: int, after_epoch: Callable[[int], object]
) -> tuple[int, list[float]]:
    """Load the state to go on from; returns the number of epochs that are done and the losses of all steps so far.

    On the way `after_epoch` is called for each epoch that is done, with the model as it was then. When files that are
    needed were removed, training begins anew. Raises `ValueError` when a file is not as it was written.
    """
    if folder is None:
        return 0, []
    finished = 0
    while finished < epochs and (folder / f"epoch-{finished + 1}.pt").exists():
        finished += 1
    losses, latest = [], None
    if finished < epochs:  # the step to go on from lies in the first epoch that is not finished
        latest = _load(folder / "latest.pt") if (folder / "latest.pt").exists() else None
        if latest is None or not finished * steps <= len(latest["losses"]) <= (finished + 1) * steps:
            return 0, []
    for epoch in range(1, finished + 1):
        state = _load(folder / f"epoch-{epoch}.pt")
        encoder.model.load_state_dict(state["model"])
        losses = state["losses"]
        after_epoch(epoch)
    if latest:
        encoder.model.load_state_dict(latest["model"])
        optimizer.load_state_dict(latest["optimizer"])
        losses = latest["losses"]
    return finished, losses


def _load(file: Path) -> dict:
    # not onto the GPU that it was saved from: each process has its own
    return torch.load(io.BytesIO(read_with_checksum(file)), map_location="cpu", weights_only=True)
