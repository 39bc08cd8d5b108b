"""Two real processes that talk through gloo, against one process that does the same."""

import io
import os
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
import yaml
from accelerate import PartialState

from src import objectives, training
from src.encoder import load_encoder
from src.objectives import make_objective
from src.records import ROOT, read_json, read_with_checksum
from src.settings import TrainingSettings
from src.training import _training_step, embed_texts, fine_tune

FAST = TrainingSettings("simcse", epochs=2, temperature=0.3, learning_rate=1e-3, batch_size=8, precision="fp32")
CASES = [("simcse", False), ("simcse", True), ("supervised_simcse", False), ("topic_and_facts", False)]
COUNTS = (72, 71, 2)  # of sentences to encode


class Stopped(Exception):
    pass


def one_of_two(rank, port, folder, model, sentences):
    """What each process does: a step of every case, encoding, a whole run, and a run that is stopped and goes on."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    PartialState(cpu=True)
    steps = {case: loss_and_gradients(rank, model, sentences, *case) for case in CASES}
    encoded = {count: load_encoder(model, "mean").encode(sentences[:count], progress=False) for count in COUNTS}
    undisturbed = train(model, sentences, folder / "undisturbed")
    with pytest.raises(Stopped):
        train(model, sentences, folder / "stopped", stop_at=15)
    resumed = train(model, sentences, folder / "stopped")
    results = {"steps": steps, "encoded": encoded, "undisturbed": undisturbed, "resumed": resumed}
    torch.save(results, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def both(tiny_folder, some_sentences, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gloo")
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    arguments = port, folder, str(tiny_folder), some_sentences
    mp.spawn(one_of_two, arguments, nprocs=2)  # forked after a training here, they may hang in the backward pass
    assert (len(list(folder.glob("stopped/*"))), len(list(folder.glob("undisturbed/*")))) == (1, 1)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


def train(model, sentences, cache, stop_at=None):
    """The losses, how many steps were taken, and the weights in the end."""
    encoder, steps = load_encoder(model, "mean", cache=cache), []

    def count(*arguments):
        steps.append(arguments)
        if len(steps) == stop_at:
            raise Stopped
        return embed_texts(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "embed_texts", count)
        losses = fine_tune(encoder, sentences, FAST)
    return losses, len(steps), encoder.weights_checksum()


def loss_and_gradients(rank, model, sentences, objective, gradient_caching):
    """One step under the dropout masks of this process."""
    encoder = load_encoder(model, "mean")
    settings = replace(FAST, objective=objective, gradient_caching=gradient_caching)
    rows = list(zip(sentences, sentences[1:], sentences[2:])) if objective == "supervised_simcse" else sentences
    targets = F.normalize(torch.randn(len(rows), 8, generator=torch.Generator().manual_seed(0))).numpy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objectives, "topic_and_facts", lambda sentences, encode, facts: targets)
        objective = make_objective(encoder, rows, settings)
    encoder.model.train()
    torch.manual_seed(rank)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: None)  # it would hide gradients of another scale
        optimizer = torch.optim.SGD(encoder.model.parameters(), lr=1.0)
        loss = _training_step(encoder, objective, 3, settings, optimizer)
    return loss, {name: value.grad for name, value in encoder.model.named_parameters() if value.grad is not None}


def halves(seeds):
    """`embed_texts` of one process that draws, for each half of the texts, the dropout masks of another one."""

    def embed(encoder, texts, gradient_caching=False):
        shares, half = [], -(-len(texts) // 2)
        for seed, own in zip(next(seeds), (texts[:half], [*texts[half:], *texts[: len(texts) % 2]])):
            torch.manual_seed(seed)
            shares.append(embed_texts(encoder, own, gradient_caching))
        return torch.cat(shares)[: len(texts)]

    return embed


@pytest.mark.parametrize("case", CASES, ids=str)
def test_two_processes_have_the_loss_and_gradient_of_one(both, tiny_folder, some_sentences, monkeypatch, case):
    monkeypatch.setattr(training, "embed_texts", halves(iter([(0, 1)])))
    loss, expected = loss_and_gradients(0, str(tiny_folder), some_sentences, *case)
    for theirs, gradients in (each["steps"][case] for each in both):
        assert theirs == pytest.approx(loss, abs=1e-5)
        assert gradients.keys() == expected.keys()
        for name, gradient in expected.items():
            assert torch.allclose(gradients[name], gradient, atol=1e-5), name
    assert max(gradient.abs().max() for gradient in expected.values()) > 1e-2


def test_a_run_of_two_processes_is_that_of_one_under_their_masks(both, tiny_folder, some_sentences, monkeypatch):
    def seeds():
        for step in range(18):
            yield [int(np.random.SeedSequence([0, step, rank]).generate_state(1)[0]) for rank in (0, 1)]

    with monkeypatch.context() as patch:
        patch.setattr(training, "embed_texts", halves(seeds()))
        expected = fine_tune(load_encoder(str(tiny_folder), "mean"), some_sentences, FAST)
    for each in both:
        losses, steps, _ = each["undisturbed"]
        assert steps == 18
        assert losses == pytest.approx(expected, abs=1e-5)


def test_two_processes_encode_a_share_each_and_have_all(both, tiny, some_sentences):
    for count in COUNTS:
        alone = tiny.encode(some_sentences[:count], progress=False)
        for each in both:
            assert np.allclose(each["encoded"][count], alone, atol=1e-6)


def test_two_processes_that_were_stopped_go_on(both):
    losses, _, weights = both[0]["undisturbed"]
    assert both[1]["undisturbed"] == both[0]["undisturbed"]
    assert both[0]["resumed"] == both[1]["resumed"] == (losses, 4, weights)  # steps 15 to 18; stopped in the 15th


def profile(folder, tiny_folder, sentences, name):
    (folder / "own.txt").write_text("\n".join(sentences))
    section = {
        "model": str(tiny_folder), "pooling": "mean", "corpus_path": str(folder / "own.txt"), "duplicates_from": None,
        "batch_size": 16, "objective": "simcse", "temperature": 0.3, "learning_rate": 1e-3, "precision": "fp32",
        "saved_model": str(folder / name), "cache_folder": str(folder / f"cache-{name}"),
    }  # fmt: skip
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({"fine_tune": section}))
    return str(folder / f"{name}.yaml")


def launch(*command):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("saved to") == 1


def test_the_command_under_launchers_trains_one_model(tiny_folder, some_sentences, tmp_path, monkeypatch):
    """What one process and two learn differs by dropout masks alone."""
    names = ("alone", "torchrun", "accelerate")
    profiles = {name: profile(tmp_path, tiny_folder, some_sentences, name) for name in names}
    monkeypatch.setattr(sys, "argv", ["src.training", profiles["alone"]])
    training.main()
    run = "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"
    launch(*run, "src.training", profiles["torchrun"])
    run = "accelerate.commands.launch", "--cpu", "--num_processes", "1", "-m"
    launch(*run, "src.training", profiles["accelerate"])
    losses, saved = {}, {}
    for name in names:
        (file,) = tmp_path.glob(f"cache-{name}/*/epoch-1.pt")
        losses[name] = torch.load(io.BytesIO(read_with_checksum(file)), weights_only=True)["losses"]
        saved[name] = read_json(tmp_path / name / "training.json")
        load_encoder(str(tmp_path / name))
    assert losses["alone"] == losses["accelerate"]
    assert losses["alone"] != losses["torchrun"]
    assert len(losses["alone"]) == len(losses["torchrun"]) == 3
    assert np.allclose(losses["alone"], losses["torchrun"], atol=0.05)
    assert saved["alone"] == saved["torchrun"] == saved["accelerate"]
