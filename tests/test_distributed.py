"""Two real processes that talk through gloo, against one process that does the same."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import yaml
from accelerate import PartialState

from src.encoder import load_encoder
from src.losses import take_apart, topic_and_facts
from src.training import Objective, TrainingSettings, _embed, fine_tune

ROOT = Path(__file__).parent.parent
FAST = TrainingSettings(learning_rate=1e-3, batch_size=8, precision="fp32")


CASES = [(objective, size) for objective in ("simcse", "topic_and_facts") for size in (8, 7, 1)]  # shares 4+4, 4+3, 1+0
COUNTS = (72, 71, 2)  # of sentences to encode


def join(rank, port):
    """Become one of two processes, as a launcher would have it."""
    torch.set_num_threads(1)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    PartialState(cpu=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def one_of_two(rank, port, folder, model, sentences):
    """Steps of all cases, encoding, and a whole run."""
    join(rank, port)
    steps = [loss_and_gradients(rank, model, sentences, *case) for case in CASES]
    encoded = [load_encoder(model, "mean").encode(sentences[:count], progress=False) for count in COUNTS]
    trained = train(model, sentences, folder / "undisturbed")
    torch.save(
        {"steps": dict(zip(CASES, steps)), "encoded": dict(zip(COUNTS, encoded)), "trained": trained},
        folder / f"{rank}.pt",
    )


def train(model, sentences, cache):
    encoder = load_encoder(model, "mean", cache=cache)
    settings = replace(FAST, epochs=2)  # 9 steps an epoch, saved every second
    losses = fine_tune(encoder, sentences, settings)
    return losses, encoder.weights()


def trained_again(rank, port, folder, model, sentences, kill_at):
    """Both processes are at the same run; the second dies in a step of the second epoch."""
    join(rank, port)
    if kill_at and rank == 1:
        forward, taken = Objective.forward, []

        def count(objective, rows):
            taken.append(rows)
            return forward(objective, rows) if len(taken) < kill_at else os._exit(9)

        Objective.forward = count
    torch.save(train(model, sentences, folder / "killed"), folder / f"again-{rank}.pt")


@pytest.fixture(scope="module")
def both(tiny_folder, some_sentences, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gloo")
    mp.spawn(one_of_two, args=(free_port(), folder, str(tiny_folder), some_sentences), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


def loss_and_gradients(rank, model, sentences, objective, size):
    """One step as DistributedDataParallel does it: forward, backward, the gradients averaged over processes."""
    encoder = load_encoder(model, "mean")
    settings, tokens = replace(FAST, objective=objective, temperature=0.3), encoder.tokenize(sentences)
    targets = None
    if objective == "topic_and_facts":
        targets = torch.from_numpy(
            topic_and_facts(*take_apart(sentences, lambda s: encoder.encode(s, progress=False)), 0.7)
        ).float()
    module = Objective(encoder, settings, [tokens] if targets is not None else [tokens, tokens], targets)
    encoder.model.train()
    torch.manual_seed(rank)
    if dist.is_initialized():
        module = torch.nn.parallel.DistributedDataParallel(module, find_unused_parameters=True)
    loss = module(torch.arange(3, 3 + size))["loss"]
    loss.backward()
    names = encoder.model.named_parameters()
    return loss.item(), {name: value.grad.clone() for name, value in names if value.grad is not None}


def one_process_with_both_masks(model, sentences, objective, size, monkeypatch):
    """The joint batch in one process, each half of the rows under the dropout masks that its process drew."""

    def halves(encoder, tokens, gradient_caching=False):
        views = 1 if objective == "topic_and_facts" else 2
        rows = np.arange(len(tokens)).reshape(views, size)
        parts, places = [], []
        for rank, mine in enumerate(np.array_split(np.arange(size), 2)):
            torch.manual_seed(rank)
            if len(mine):
                places.extend(rows[:, mine].ravel())
                parts.append(_embed(encoder, [tokens[row] for row in rows[:, mine].ravel()]))
        return torch.cat(parts)[np.argsort(places)]

    monkeypatch.setattr("src.training._embed", halves)
    return loss_and_gradients(0, model, sentences, objective, size)


@pytest.mark.parametrize(("objective", "size"), CASES)
def test_two_processes_have_the_loss_and_gradient_of_one(
    both, tiny_folder, some_sentences, monkeypatch, objective, size
):
    loss, expected = one_process_with_both_masks(str(tiny_folder), some_sentences, objective, size, monkeypatch)
    for theirs, gradients in (each["steps"][objective, size] for each in both):
        assert theirs == pytest.approx(loss, abs=1e-5)
        for name, gradient in expected.items():
            assert torch.allclose(gradients[name], gradient, atol=1e-5), name
    if size > 1:
        assert max(gradient.abs().max() for gradient in expected.values()) > 1e-3


def test_two_processes_encode_a_share_each_and_have_all(both, tiny, some_sentences):
    for count in COUNTS:
        alone = tiny.encode(some_sentences[:count], progress=False)
        for each in both:
            assert np.allclose(each["encoded"][count], alone, atol=1e-6)


def test_two_processes_of_which_one_is_killed_go_on(both, tiny_folder, some_sentences, tmp_path):
    arguments = tmp_path, str(tiny_folder), some_sentences
    with pytest.raises(mp.ProcessExitedException):
        mp.spawn(trained_again, args=(free_port(), *arguments, 13), nprocs=2)
    assert list(tmp_path.glob("killed/*/checkpoint-12"))
    mp.spawn(trained_again, args=(free_port(), *arguments, 0), nprocs=2)
    for rank in (0, 1):
        assert torch.load(tmp_path / f"again-{rank}.pt", weights_only=False) == both[0]["trained"] == both[1]["trained"]


def profile(tmp_path, tiny_folder, name, **values):
    section = {
        "model": str(tiny_folder), "pooling": "mean", "train_sentences": 90, "batch_size": 32, "objective": "simcse",
        "temperature": 0.3, "learning_rate": 1e-3, "saved_model": str(tmp_path / name), "cache_folder": str(tmp_path / f"cache-{name}"),
    }  # fmt: skip
    (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"fine_tune": section | values}))
    return str(tmp_path / f"{name}.yaml")


def launch(*command, check=True):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr[-2000:]
    return done


def test_the_command_under_launchers_trains_one_model(tiny_folder, tmp_path):
    """90 sentences in batches of 32, the last of 26: what one process and two learn differs by dropout masks alone."""
    one, two, three = (profile(tmp_path, tiny_folder, name) for name in ("one", "two", "three"))
    assert "saved to" in launch("src.training", one).stdout
    launch("torch.distributed.run", "--nproc-per-node", "2", "-m", "src.training", two)
    launch("accelerate.commands.launch", "--cpu", "--num_processes", "1", "-m", "src.training", three)
    losses, saved = {}, {}
    for name in ("one", "two", "three"):
        (file,) = tmp_path.glob(f"cache-{name}/*/epoch-1/losses.json")
        losses[name] = json.loads(file.read_text())
        saved[name] = json.loads((tmp_path / name / "training.json").read_text())
        load_encoder(str(tmp_path / name))
    assert losses["one"] == losses["three"]
    assert losses["one"] != losses["two"]
    assert len(losses["one"]) == len(losses["two"]) == 3
    assert np.allclose(losses["one"], losses["two"], atol=0.02)
    assert saved["one"] == saved["two"] == saved["three"]


def test_the_command_refuses_a_misspelt_parameter(tiny_folder, tmp_path):
    done = launch("src.training", profile(tmp_path, tiny_folder, "typo", temprature=0.1), check=False)
    assert done.returncode == 1
    assert "fine_tune has no parameter 'temprature', only epochs, objective" in done.stderr
