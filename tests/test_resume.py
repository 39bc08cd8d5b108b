"""Runs that are killed, and what the cache gives back: always what an undisturbed run would have ended in."""

import os
import pickle
import random
import resource
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from filelock import FileLock

import src.training
from src.corpus import write_atomically
from src.encoder import Encoder, load_encoder
from src.sentences import generate_sentences
from src.sharing import save_encoder
from src.training import Objective, TrainingSettings, _seal, fine_tune
from tests.tiny_model import make_tiny_model

FAST = TrainingSettings(epochs=2, learning_rate=1e-3, batch_size=8)  # 9 steps an epoch, saved every second


def train(folder, sentences, cache, settings=FAST):
    encoder, snapshots = load_encoder(str(folder), "mean", cache=cache), {}
    losses = fine_tune(encoder, sentences, settings, lambda epoch: snapshots.update({epoch: encoder.weights()}))
    return losses, snapshots, encoder.weights()


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def killed(work):
    """Do the work in a process that is expected to be killed on the way."""
    if (child := os.fork()) == 0:
        try:
            work()
        finally:
            os._exit(0)  # not reached when killed
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])


def at_step(step, monkeypatch):
    """The process dies in the middle of this step, the first being 1."""
    forward, taken = Objective.forward, 0

    def count(*arguments, **inputs):
        nonlocal taken
        taken += 1
        return die() if taken == step else forward(*arguments, **inputs)

    monkeypatch.setattr(Objective, "forward", count)


def half_a_file(name):
    """A kill while `name` is being written: what is there is cut in half."""

    def write(first, second, *_, **__):
        path = next(part for part in (first, second) if isinstance(part, str | os.PathLike))
        with open(path, "wb") as file:
            file.write(b"half")
        die()

    return name, write


@pytest.fixture(scope="module")
def undisturbed(tiny_folder, some_sentences):
    return train(tiny_folder, some_sentences, None)


@pytest.mark.parametrize("steps", [[1], [2], [3], [9], [10], [11, 1, 5], [18]])
def test_killed_at_a_step_and_run_again(tiny_folder, some_sentences, tmp_path, undisturbed, steps):
    for step in steps:  # of each process, one after the other
        with pytest.MonkeyPatch.context() as patch:
            at_step(step, patch)
            killed(lambda: train(tiny_folder, some_sentences, tmp_path))
    assert train(tiny_folder, some_sentences, tmp_path) == undisturbed


@pytest.mark.parametrize("step", [9, 16])
def test_killed_at_the_end_of_an_epoch_that_ends_with_a_save(tiny_folder, some_sentences, tmp_path, step):
    settings = replace(
        FAST, batch_size=9
    )  # 8 steps an epoch, saved every second: the next one has begun, or all is done
    with pytest.MonkeyPatch.context() as patch:
        at_step(step, patch)
        killed(lambda: train(tiny_folder, some_sentences, tmp_path, settings))
    expected = train(tiny_folder, some_sentences, None, settings)
    assert train(tiny_folder, some_sentences, tmp_path, settings) == expected


@pytest.mark.parametrize(
    "where",
    [
        half_a_file("src.training.save_file"),  # the weights of an epoch
        half_a_file("transformers.trainer.safetensors.torch.save_file"),  # a checkpoint
        half_a_file("transformers.trainer.torch.save"),  # its optimizer
        ("src.training._seal", die),
        ("src.training.shutil.rmtree", die),  # removing the checkpoint before
    ],
    ids=lambda where: where[0].split(".", 2)[-1],
)
def test_killed_while_saving(tiny_folder, some_sentences, tmp_path, undisturbed, where):
    for before in (0, 3):  # steps of this process by then
        with pytest.MonkeyPatch.context() as patch:
            if before:
                at_step(before, patch)
                killed(lambda: train(tiny_folder, some_sentences, tmp_path))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(*where)
            killed(lambda: train(tiny_folder, some_sentences, tmp_path))
    assert train(tiny_folder, some_sentences, tmp_path) == undisturbed
    assert not list(tmp_path.glob("*/checkpoint-*"))


def test_what_was_finished_is_not_done_again(tiny_folder, some_sentences, tmp_path, undisturbed, monkeypatch):
    assert train(tiny_folder, some_sentences, tmp_path) == undisturbed
    monkeypatch.setattr(Objective, "forward", lambda *_, **__: pytest.fail("trained again"))
    assert train(tiny_folder, some_sentences, tmp_path) == undisturbed
    losses, snapshots, _ = undisturbed
    first = losses[:9], {1: snapshots[1]}, snapshots[1]
    assert (
        train(tiny_folder, some_sentences, tmp_path, replace(FAST, facts=0.5)) == undisturbed
    )  # which it does not use
    assert train(tiny_folder, some_sentences, tmp_path, replace(FAST, epochs=1)) == first  # the longer run's beginning


@pytest.mark.parametrize(
    "what", ["temperature", "seed", "sentences", "weights", "dropout", "max_length", "precision", "code"]
)
def test_a_run_that_differs_in_anything_is_another_run(tmp_path, some_sentences, monkeypatch, what):
    settings = replace(FAST, epochs=1, precision="fp32")

    def once(folder, sentences=some_sentences, settings=settings, length=None):
        encoder = load_encoder(str(folder), "mean", length, cache=tmp_path / "cache")
        fine_tune(encoder, sentences, settings)
        return len(list((tmp_path / "cache").glob("*-simcse-*")))

    tiny = make_tiny_model(tmp_path / "tiny")
    assert once(tiny) == once(tiny) == 1
    other = {
        "temperature": lambda: once(tiny, settings=replace(settings, temperature=0.4)),
        "seed": lambda: once(tiny, settings=replace(settings, seed=1)),
        "sentences": lambda: once(tiny, some_sentences[::-1]),
        "weights": lambda: once(make_tiny_model(tmp_path / "tiny", seed=1)),
        "dropout": lambda: once(make_tiny_model(tmp_path / "tiny", dropout=0.5)),
        "max_length": lambda: once(tiny, length=4),
        "precision": lambda: once(tiny, settings=replace(settings, precision="bf16")),
        "code": lambda: (monkeypatch.setattr("src.corpus.library_versions", lambda: {"torch": "3"}), once(tiny))[1],
    }
    with pytest.warns(UserWarning, match="cut there") if what == "max_length" else monkeypatch.context():
        assert other[what]() == 2


def interrupted(tiny_folder, some_sentences, cache):
    with pytest.MonkeyPatch.context() as patch:
        at_step(12, patch)
        killed(lambda: train(tiny_folder, some_sentences, cache))
    (checkpoint,) = cache.glob("*/checkpoint-10")
    return checkpoint


@pytest.mark.parametrize(
    "file", ["checkpoint-10/model.safetensors", "checkpoint-10/optimizer.pt", "epoch-1/losses.json"]
)
@pytest.mark.parametrize("damage", ["cut", "altered", "gone"])
def test_a_damaged_file_is_named_and_nothing_is_lost(tiny_folder, some_sentences, tmp_path, file, damage):
    path = interrupted(tiny_folder, some_sentences, tmp_path).parent / file
    content = path.read_bytes()
    path.write_bytes(content[:-20] if damage == "cut" else content[:-5] + b"?" + content[-4:])
    if damage == "gone":
        path.unlink()
    with pytest.raises(ValueError, match=f"{file} is not as it was written: remove .* to train anew"):
        train(tiny_folder, some_sentences, tmp_path)
    path.write_bytes(content)
    train(tiny_folder, some_sentences, tmp_path)


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_checkpoint_is_not_run(tiny_folder, some_sentences, tmp_path):
    checkpoint = interrupted(tiny_folder, some_sentences, tmp_path)
    for name in ("optimizer.pt", "rng_state.pth"):
        with open(checkpoint / name, "wb") as file:
            pickle.dump(Payload(tmp_path / "executed"), file)
    _seal(checkpoint)
    with pytest.raises(pickle.UnpicklingError, match=r"[Ww]eights.only"):
        train(tiny_folder, some_sentences, tmp_path)
    assert not (tmp_path / "executed").exists()


def test_a_longer_run_leaves_what_a_shorter_one_had_finished(tiny_folder, some_sentences, tmp_path, undisturbed):
    one = train(tiny_folder, some_sentences, tmp_path, replace(FAST, epochs=1))
    for name in ("_seal", "save_file"):  # killed while it saves
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(src.training, name, die)
            killed(lambda: train(tiny_folder, some_sentences, tmp_path))
        assert train(tiny_folder, some_sentences, tmp_path, replace(FAST, epochs=1)) == one
    assert train(tiny_folder, some_sentences, tmp_path) == undisturbed


def everything(tiny_folder, sentences, folder):
    """Generation, encoding, training and saving into a folder; what they end in."""
    write_atomically(folder / "corpus.csv", lambda path: generate_sentences(300).to_csv(path))
    encoder = load_encoder(str(tiny_folder), "mean", cache=folder / "cache")
    before = encoder.encode(sentences, progress=False)
    losses = fine_tune(encoder, sentences, FAST)
    save_encoder(encoder, folder / "model", {})
    return (folder / "corpus.csv").read_bytes(), before.tobytes(), losses, load_encoder(str(folder / "model")).weights()


def killed_after(seconds, work) -> bool:
    """Whether the kill came before the work was done; the work itself may not fail."""
    if (child := os.fork()) == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def test_killed_at_random_moments_of_everything(tiny_folder, some_sentences, tmp_path):
    (tmp_path / "whole").mkdir()
    start = time.monotonic()
    expected = everything(tiny_folder, some_sentences, tmp_path / "whole")
    seconds, rng = time.monotonic() - start, random.Random(0)
    for run in range(3):
        (folder := tmp_path / str(run)).mkdir()
        moments = [rng.uniform(0, seconds) for _ in range(3)]
        assert any([killed_after(at, lambda: everything(tiny_folder, some_sentences, folder)) for at in moments])
        assert everything(tiny_folder, some_sentences, folder) == expected


def test_killed_while_writing_again_and_again_there_is_never_half(tiny_folder, tmp_path):
    corpus, encoders = (
        generate_sentences(2_000),
        [load_encoder(str(tiny_folder), pooling) for pooling in ("mean", "cls")],
    )
    with torch.no_grad():
        encoders[1].model.embeddings.word_embeddings.weight += 1
    weights = {encoder.pooling: encoder.weights() for encoder in encoders}
    rng = random.Random(0)

    def write(encoder):
        write_atomically(tmp_path / "corpus.csv", lambda path: corpus.to_csv(path))
        save_encoder(encoder, tmp_path / "model", {})

    def for_ever():
        while True:
            for encoder in encoders:
                write(encoder)

    write(encoders[0])
    whole = (tmp_path / "corpus.csv").read_bytes()
    for _ in range(30):
        assert killed_after(rng.uniform(0.02, 0.1), for_ever)
        assert (tmp_path / "corpus.csv").read_bytes() == whole
        if (
            tmp_path / "model"
        ).exists():  # between two renames the old model has another name, and the new one has, too
            saved = load_encoder(str(tmp_path / "model"))
            assert saved.weights() == weights[saved.pooling]


def interrupt(*_, **__):
    raise KeyboardInterrupt  # what Ctrl-C raises


def test_a_disk_that_is_full_and_an_interrupt_lose_nothing(tiny_folder, some_sentences, tmp_path, undisturbed):
    train(tiny_folder, some_sentences, tmp_path, replace(FAST, epochs=1))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in (
        0,
        20_000,
        300_000,
    ):  # bytes that any file may have: of what a full disk does, the part that can be had
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        try:
            with pytest.raises(Exception, match=r"File too large|No space left"):
                train(tiny_folder, some_sentences, tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("src.training._Progress.on_save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_folder, some_sentences, tmp_path)
    assert train(tiny_folder, some_sentences, tmp_path) == undisturbed


def test_two_at_the_same_run_and_a_folder_that_cannot_be_written(tiny_folder, some_sentences, tmp_path):
    train(tiny_folder, some_sentences, tmp_path / "cache")
    (folder,) = (tmp_path / "cache").glob("*-simcse-*")
    with FileLock(folder / ".lock"), pytest.raises(RuntimeError, match="another process is at this very run, in "):
        train(tiny_folder, some_sentences, tmp_path / "cache")
    (tmp_path / "file").touch()
    with pytest.raises(PermissionError, match=r"file/.* cannot be written to"):
        train(tiny_folder, some_sentences, tmp_path / "file")


def test_embeddings_are_kept_and_never_taken_for_others(tiny_folder, some_sentences, tmp_path, monkeypatch):
    encoder = load_encoder(str(tiny_folder), "mean", cache=tmp_path)
    expected = load_encoder(str(tiny_folder), "mean").encode(some_sentences, progress=False)
    assert np.array_equal(encoder.encode(some_sentences, progress=False), expected)
    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "embed", lambda *_: pytest.fail("encoded again"))
        assert np.array_equal(encoder.encode(some_sentences, progress=False), expected)
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("tiny-72-sentences-")
    for damaged in (
        file.read_bytes()[:-9],
        b"",
        file.read_bytes().replace(expected[3].tobytes(), expected[4].tobytes()),
    ):
        file.write_bytes(damaged)
        assert np.array_equal(encoder.encode(some_sentences, progress=False), expected)
    assert not np.array_equal(encoder.encode(some_sentences[::-1], progress=False), expected)
    for field, value in {"pooling": "cls", "prompt": "about: ", "max_length": 6}.items():
        other = replace(encoder, **{field: value})
        with pytest.warns(UserWarning, match="cut there") if field == "max_length" else monkeypatch.context():
            assert not np.array_equal(other.encode(some_sentences, progress=False), expected)
    with torch.no_grad():
        encoder.model.embeddings.word_embeddings.weight[-1] += 1e-6
    encoder.encode(some_sentences, progress=False)
    assert len(list(tmp_path.iterdir())) == 6


def test_without_a_cache_nothing_is_written(tiny_folder, some_sentences, tmp_path, monkeypatch):
    monkeypatch.setattr(src.training, "save_file", lambda *_: pytest.fail("saved"))
    monkeypatch.chdir(tmp_path)
    train(tiny_folder, some_sentences, None)
    assert not list(tmp_path.iterdir())
