"""Runs that are killed, and what the cache gives back: always what an undisturbed run would have ended in."""

import contextlib
import io
import os
import pickle
import random
import resource
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from tqdm import tqdm

from src import checkpoints, records, training
from src.checkpoints import run_folder
from src.encoder import Encoder, load_encoder
from src.objectives import Objective
from src.records import read_with_checksum, write_atomically, write_with_checksum
from src.sentences import generate_sentences
from src.settings import TrainingSettings
from src.sharing import save_encoder
from src.training import Collapse, embed_texts, fine_tune
from tests.tiny_model import make_tiny_model

FAST = TrainingSettings("simcse", epochs=2, learning_rate=1e-3, batch_size=8)  # 9 steps an epoch, saved at 5 and 9


def train(folder, sentences, cache, settings=FAST, after_epoch=lambda epoch: None):
    """Train a fresh tiny model: the losses, the weights after every epoch, and those in the end."""
    encoder, snapshots = load_encoder(str(folder), "mean", cache=cache), {}

    def look(epoch):
        assert not encoder.model.training
        snapshots[epoch] = encoder.weights_checksum()
        after_epoch(epoch)

    losses = fine_tune(encoder, sentences, settings, look)
    return losses, snapshots, encoder.weights_checksum()


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def forked(work) -> int:
    """Do the work in a process of its own, whose exit status says whether it failed; returns its number."""
    if child := os.fork():
        return child
    with contextlib.suppress(BaseException):
        tqdm.set_lock(
            threading.RLock()
        )  # the inherited one is shared: killed with it, the child would block the parent
        work()
        os._exit(0)
    os._exit(1)


def killed(fault, work):
    """Set up the fault and do the work in a process that is expected to be killed on the way."""
    child = forked(lambda: (fault(), work()))
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])


def at_step(number):
    """The process dies in the middle of this step, its first being 1."""

    def fault():
        taken = []
        training.embed_texts = lambda *arguments: (
            die() if len(taken) + 1 == number else taken.append(1) or embed_texts(*arguments)
        )

    return fault


def before_writing(name):
    def fault():
        save = checkpoints.write_with_checksum
        checkpoints.write_with_checksum = lambda path, content: die() if path.name == name else save(path, content)

    return fault


def half_written(name, count=1):
    """The process dies when half of this file is written, for the `count`th time."""

    def fault():
        write, times = Path.write_bytes, []

        def write_half(path, content):
            if not path.name.endswith(name) or times.append(1) or len(times) < count:
                return write(path, content)
            write(path, content[: len(content) // 2])
            die()

        Path.write_bytes = write_half

    return fault


def before_moving():
    records.os.replace = die


def while_looking():
    training.restore = lambda *arguments: checkpoints.restore(*arguments[:-1], die)


@pytest.fixture(scope="module")
def undisturbed(tiny_folder, some_sentences):
    return train(tiny_folder, some_sentences, None)


@pytest.fixture(scope="module")
def interrupted(tiny_folder, some_sentences, tmp_path_factory):
    """The cache of a run that was killed in step 15, when steps 1 to 14 were saved."""
    cache = tmp_path_factory.mktemp("interrupted")
    killed(at_step(15), lambda: train(tiny_folder, some_sentences, cache))
    (folder,) = cache.iterdir()
    assert {path.name for path in folder.iterdir()} == {".lock", "latest.pt", "epoch-1.pt"}
    return cache


@pytest.fixture
def run(interrupted, tmp_path):
    """The folder of that run, in a cache of the test's own, `tmp_path`."""
    (folder,) = interrupted.iterdir()
    (tmp_path / folder.name).mkdir()
    for path in folder.glob("*.pt"):
        (tmp_path / folder.name / path.name).write_bytes(path.read_bytes())
    return tmp_path / folder.name


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([at_step(2)], id="before anything is saved"),
        pytest.param([at_step(7), at_step(6)], id="in the middle of an epoch, and again"),
        pytest.param([before_writing("epoch-1.pt")], id="between the two files of an epoch's end"),
        pytest.param([at_step(10)], id="at the first step of epoch 2"),
        pytest.param(
            [at_step(15), while_looking, at_step(1), at_step(3)], id="in epoch 2, and while it is gone through"
        ),
        pytest.param([before_writing("epoch-2.pt")], id="before the very last file"),
        pytest.param([half_written("latest.pt"), half_written("latest.pt", 3)], id="while latest.pt is written"),
        pytest.param([half_written("epoch-1.pt"), before_moving], id="while epoch-1.pt is written, and moved"),
    ],
)
def test_killed_and_run_again(tiny_folder, some_sentences, tmp_path, undisturbed, faults):
    for fault in faults:  # one process after the other
        killed(fault, lambda: train(tiny_folder, some_sentences, tmp_path))
    assert train(tiny_folder, some_sentences, tmp_path) == undisturbed
    (folder,) = tmp_path.iterdir()
    assert {path.name for path in folder.iterdir()} == {".lock", "latest.pt", "epoch-1.pt", "epoch-2.pt"}


def test_what_after_epoch_draws_does_not_matter_to_a_run_that_goes_on(run, tiny_folder, some_sentences, undisturbed):
    """Random state that is left behind differs between the run that was killed and the one that goes on."""
    assert train(tiny_folder, some_sentences, run.parent, after_epoch=lambda epoch: torch.rand(1000)) == undisturbed


def count_steps(monkeypatch):
    steps = []
    monkeypatch.setattr(training, "embed_texts", lambda *arguments: steps.append(1) or embed_texts(*arguments))
    return steps


def test_a_run_goes_on_from_where_it_was_saved(run, tiny_folder, some_sentences, undisturbed, monkeypatch):
    steps = count_steps(monkeypatch)
    assert train(tiny_folder, some_sentences, run.parent) == undisturbed
    assert len(steps) == 4  # 15 to 18


def test_an_epoch_whose_last_step_was_saved_is_not_trained_again(tiny_folder, some_sentences, tmp_path, monkeypatch):
    settings = replace(FAST, batch_size=9)  # 8 steps an epoch, saved at 4 and 8
    expected, steps = train(tiny_folder, some_sentences, None, settings), count_steps(monkeypatch)
    killed(before_writing("epoch-1.pt"), lambda: train(tiny_folder, some_sentences, tmp_path, settings))
    assert train(tiny_folder, some_sentences, tmp_path, settings) == expected
    assert len(steps) == 8  # those of epoch 2


def test_a_removed_file_is_made_again(tiny_folder, some_sentences, tmp_path):
    settings = replace(FAST, epochs=3)
    train(tiny_folder, some_sentences, tmp_path)
    next(tmp_path.glob("*/epoch-1.pt")).unlink()
    killed(at_step(12), lambda: train(tiny_folder, some_sentences, tmp_path, settings))  # epoch-2.pt is the older run's
    assert train(tiny_folder, some_sentences, tmp_path, settings) == train(tiny_folder, some_sentences, None, settings)


def test_what_was_finished_is_not_trained_again(tiny_folder, some_sentences, tmp_path, undisturbed, monkeypatch):
    steps = count_steps(monkeypatch)
    losses, snapshots, _ = undisturbed
    shorter = losses[:9], {1: snapshots[1]}, snapshots[1]
    one = replace(FAST, epochs=1)
    assert train(tiny_folder, some_sentences, tmp_path, one) == shorter
    killed(before_writing("latest.pt"), lambda: train(tiny_folder, some_sentences, tmp_path))
    assert train(tiny_folder, some_sentences, tmp_path, one) == shorter  # a longer run leaves what there was
    assert len(steps) == 9
    assert train(tiny_folder, some_sentences, tmp_path) == undisturbed  # a longer run goes on
    assert len(steps) == 18
    assert train(tiny_folder, some_sentences, tmp_path) == undisturbed
    assert train(tiny_folder, some_sentences, tmp_path, replace(FAST, facts=0.5)) == undisturbed  # not used by simcse
    assert train(tiny_folder, some_sentences, tmp_path, one) == shorter
    assert len(steps) == 18


def test_a_run_that_differs_in_anything_is_another_run(tmp_path, tiny_folder, some_sentences, monkeypatch):
    settings = replace(FAST, precision="fp32")

    def name(
        model=tiny_folder,
        sentences=some_sentences,
        settings=settings,
        pooling="mean",
        length=None,
        source=(),
    ):
        encoder = load_encoder(str(model), pooling, length, cache=tmp_path / "cache")
        views = [[{"input_ids": row["input_ids"][:length]} for row in encoder.tokenize(sentences)]]
        objective = Objective(views, lambda embeddings, _: embeddings.sum(), 8, source=source)
        with run_folder(encoder, settings, objective) as folder:
            return folder.name

    names = [
        name(),
        *(name(settings=replace(settings, **{key: value})) for key, value in (
            ("temperature", 0.4), ("seed", 1), ("learning_rate", 1e-4), ("batch_size", 9), ("precision", "bf16"),
            ("objective", "supervised_simcse"), ("objective", "topic_and_facts"), ("gradient_caching", True),
        )),
        name(settings=replace(settings, objective="topic_and_facts", stretch=2.0)),
        name(settings=replace(settings, objective="topic_and_facts", facts=0.6)),
        name(sentences=some_sentences[::-1]),
        name(source=[0.5, 1.0]),
        name(source=["Other Capitals"]),
        name(settings=replace(settings, objective="graded_pairs")),
        name(pooling="cls"),
        name(make_tiny_model(tmp_path / "tiny", seed=1)),
        name(make_tiny_model(tmp_path / "tiny", dropout=0.5)),
    ]  # fmt: skip
    with pytest.warns(UserWarning, match="cut there"):
        names.append(name(length=4))
    with monkeypatch.context() as patch:
        patch.setattr(records, "CACHE_VERSION", records.CACHE_VERSION + 1)
        names.append(name())
    assert len(set(names)) == len(names)
    assert name(settings=replace(settings, epochs=1, facts=0.5, stretch=2.0)) == names[0]  # of no matter to simcse


@pytest.mark.parametrize(("file", "damage"), [("latest.pt", "cut"), ("epoch-1.pt", "altered")])
def test_a_damaged_file_is_named_and_may_be_removed(run, tiny_folder, some_sentences, undisturbed, file, damage):
    content = (run / file).read_bytes()
    damaged = content[:-20] if damage == "cut" else content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]
    (run / file).write_bytes(damaged)
    with pytest.raises(ValueError, match=f"{run / file} .*remove it"):
        train(tiny_folder, some_sentences, run.parent)
    (run / file).unlink()
    assert train(tiny_folder, some_sentences, run.parent) == undisturbed


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_checkpoint_is_not_run(run, tiny_folder, some_sentences, tmp_path):
    torch.save(Payload(tmp_path / "executed"), content := io.BytesIO())
    write_with_checksum(run / "latest.pt", content.getvalue())
    with pytest.raises(pickle.UnpicklingError, match=r"[Ww]eights.only"):
        train(tiny_folder, some_sentences, tmp_path)
    assert not (tmp_path / "executed").exists()


def test_a_collapse_gives_back_the_weights_that_a_run_went_on_from(run, tiny, some_sentences, tmp_path, monkeypatch):
    tiny.cache = tmp_path
    content = read_with_checksum(run / "latest.pt")
    saved = torch.load(io.BytesIO(content), weights_only=True)["model"]

    def push(*arguments):
        with torch.no_grad():
            tiny.model.encoder.layer[-1].output.LayerNorm.weight.mul_(1e-4)
            tiny.model.encoder.layer[-1].output.LayerNorm.bias.fill_(1.0)
        return embed_texts(*arguments)

    monkeypatch.setattr(training, "embed_texts", push)
    with pytest.raises(Collapse, match="as it was at step 14"):
        fine_tune(tiny, some_sentences, FAST)
    assert all(torch.equal(value, saved[name]) for name, value in tiny.model.state_dict().items())
    assert read_with_checksum(run / "latest.pt") == content  # what has collapsed is not saved


def interrupt(*_, **__):
    raise KeyboardInterrupt  # what Ctrl-C raises


def test_a_disk_that_is_full_and_an_interrupt_lose_nothing(run, tiny_folder, some_sentences, undisturbed, monkeypatch):
    before = {path.name: path.read_bytes() for path in run.glob("*.pt")}

    def fill(room):  # bytes that any file may have: of what a full disk does, the part that can be had
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        with open(os.devnull, "w") as sys.stderr, pytest.raises(OSError, match="File too large"):
            train(tiny_folder, some_sentences, run.parent)

    for room in (0, 300_000):
        assert os.waitpid(forked(lambda room=room: fill(room)), 0)[1] == 0
        assert {path.name: path.read_bytes() for path in run.glob("*.pt")} == before
    with monkeypatch.context() as patch:
        patch.setattr(training, "save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_folder, some_sentences, run.parent)
    assert train(tiny_folder, some_sentences, run.parent) == undisturbed


def test_two_at_the_same_run_and_a_folder_that_cannot_be_written(run, tiny_folder, some_sentences, tmp_path):
    with (
        FileLock(run / ".lock"),
        pytest.raises(BlockingIOError, match=f"another process trains this very run, in {run}"),
    ):
        train(tiny_folder, some_sentences, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(PermissionError, match=r"file/.* cannot be written to"):
        train(tiny_folder, some_sentences, tmp_path / "file")


def test_without_a_cache_nothing_is_written(tiny_folder, some_sentences, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "write_with_checksum", lambda *_: pytest.fail("saved"))
    monkeypatch.chdir(tmp_path)
    train(tiny_folder, some_sentences, None, replace(FAST, epochs=1))
    assert not list(tmp_path.iterdir())


def killed_after(seconds, work) -> bool:
    """Whether the kill came before the work was done; the work itself may not fail."""
    child = forked(work)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def everything(tiny_folder, sentences, folder):
    """Generation, encoding, training and saving into a folder; what they end in."""
    write_atomically(folder / "corpus.csv", lambda path: generate_sentences(200).to_csv(path))
    encoder = load_encoder(str(tiny_folder), "mean", cache=folder / "cache")
    before = encoder.encode(sentences, progress=False)
    losses = fine_tune(encoder, sentences, FAST)
    save_encoder(encoder, folder / "model", {})
    saved = load_encoder(str(folder / "model")).weights_checksum()
    return (folder / "corpus.csv").read_bytes(), before.tobytes(), losses, saved


def test_killed_at_random_moments_of_everything(tiny_folder, some_sentences, tmp_path):
    (tmp_path / "whole").mkdir()
    start = time.monotonic()
    expected = everything(tiny_folder, some_sentences, tmp_path / "whole")
    seconds, rng = time.monotonic() - start, random.Random(0)
    (folder := tmp_path / "killed").mkdir()
    moments = sorted(rng.uniform(0, seconds) for _ in range(3))
    assert any([killed_after(at, lambda: everything(tiny_folder, some_sentences, folder)) for at in moments])
    assert everything(tiny_folder, some_sentences, folder) == expected


def test_killed_while_writing_again_and_again_there_is_never_half(tiny_folder, tmp_path):
    corpus = generate_sentences(1_000)
    encoders = [load_encoder(str(tiny_folder), pooling) for pooling in ("mean", "cls")]
    with torch.no_grad():
        encoders[1].model.embeddings.word_embeddings.weight += 1
    weights = {encoder.pooling: encoder.weights_checksum() for encoder in encoders}
    rng = random.Random(0)

    def write(encoder):
        write_atomically(tmp_path / "corpus.csv", lambda path: corpus.to_csv(path))
        save_encoder(encoder, tmp_path / "model", {})

    def write_for_ever():
        while True:
            for encoder in encoders:
                write(encoder)

    write(encoders[0])
    whole, seen = (tmp_path / "corpus.csv").read_bytes(), 0
    for _ in range(15):
        assert killed_after(rng.uniform(0.02, 0.15), write_for_ever)
        assert (tmp_path / "corpus.csv").read_bytes() == whole
        if (tmp_path / "model").exists():  # between two renames the old model has another name, and the new one too
            saved = load_encoder(str(tmp_path / "model"))
            assert saved.weights_checksum() == weights[saved.pooling]
            seen += 1
    assert seen > 5


def test_embeddings_are_kept_and_never_taken_for_others(tiny_folder, some_sentences, tmp_path, monkeypatch):
    encoder = load_encoder(str(tiny_folder), "mean", cache=tmp_path)
    expected = load_encoder(str(tiny_folder), "mean").encode(some_sentences, progress=False)
    assert np.array_equal(encoder.encode(some_sentences, progress=False), expected)
    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "embed", lambda *_: pytest.fail("encoded again"))
        assert np.array_equal(encoder.encode(some_sentences, progress=False), expected)
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("tiny-72-sentences-")
    swapped = file.read_bytes().replace(expected[3].tobytes(), expected[4].tobytes())
    for damaged in (file.read_bytes()[:-9], swapped):
        file.write_bytes(damaged)
        assert np.array_equal(encoder.encode(some_sentences, progress=False), expected)
    assert not np.array_equal(encoder.encode(some_sentences[::-1], progress=False), expected)
    for field, value in {"pooling": "cls", "prompt": "about: ", "max_length": 6}.items():
        other = replace(encoder, **{field: value})
        with pytest.warns(UserWarning, match="cut there") if field == "max_length" else contextlib.nullcontext():
            assert not np.array_equal(other.encode(some_sentences, progress=False), expected)
    with torch.no_grad():
        encoder.model.embeddings.word_embeddings.weight[-1] += 1e-6
    encoder.encode(some_sentences, progress=False)
    assert len(list(tmp_path.iterdir())) == 6
