"""What is different on a GPU, held against the CPU. Skipped without one, and by `make test`: run `make test-gpu`."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from src import training
from src.encoder import load_encoder
from src.similarity import pairwise_distribution
from src.training import Objective, TrainingSettings, fine_tune

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is visible")
FP32 = TrainingSettings(epochs=2, batch_size=16, learning_rate=1e-3, precision="fp32")


class Killed(Exception):
    pass


def test_what_is_chosen_on_a_gpu(tiny):
    assert tiny.model.device.type == "cuda"
    assert TrainingSettings().bf16 == torch.cuda.is_bf16_supported()
    assert tiny.model.config._attn_implementation == "sdpa"
    assert next(tiny.model.parameters()).dtype == torch.float32  # what is evaluated


def test_embeddings_are_those_of_the_cpu(tiny, some_sentences):
    on_gpu = [tiny.encode(some_sentences, batch_size=size, progress=False) for size in (None, 5)]
    tiny.model.cpu()
    on_cpu = tiny.encode(some_sentences, progress=False)
    assert all(np.abs(embeddings - on_cpu).max() < 1e-5 for embeddings in on_gpu)


def test_pairs_are_counted_as_on_the_cpu(unit_rows, monkeypatch):
    rows = unit_rows(3000, 16)
    on_gpu = pairwise_distribution(rows)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_cpu = pairwise_distribution(rows)
    assert on_gpu.counts.sum() == on_cpu.counts.sum() == 3000 * 2999 // 2
    assert np.abs(np.cumsum(on_gpu.counts - on_cpu.counts)).max() < 1e-4 * on_cpu.counts.sum()  # on a bin's edge


@pytest.mark.parametrize("objective", ["simcse", "topic_and_facts"])
def test_loss_and_gradient_are_those_of_the_cpu(tiny, some_sentences, objective):
    """Dropout off: the two devices draw other masks."""
    tokens, rows = tiny.tokenize(some_sentences), torch.arange(20)
    targets = torch.nn.functional.normalize(torch.randn(len(tokens), 8), dim=-1) if "topic" in objective else None
    settings, found = replace(FP32, objective=objective, temperature=0.4), []
    for device in ("cuda", "cpu"):
        tiny.model.to(device).zero_grad()
        loss = Objective(tiny, settings, [tokens] * (1 if "topic" in objective else 2), targets)(rows)["loss"]
        loss.backward()
        named = tiny.model.named_parameters()
        found.append((loss.item(), {name: p.grad.cpu() for name, p in named if p.grad is not None}))
    (on_gpu, gradients), (on_cpu, expected) = found
    assert on_gpu == pytest.approx(on_cpu, abs=1e-5)
    assert all(torch.allclose(gradients[name], expected[name], atol=1e-5) for name in expected)


def test_gradient_caching_replays_the_masks(tiny, some_sentences, monkeypatch):
    for name in ("CHUNK_ON_GPU", "CACHED_CHUNK_ON_GPU"):
        monkeypatch.setattr(training, name, 16)  # several chunks
    tokens, found = [tiny.tokenize(some_sentences)] * 2, []
    for caching in (False, True):
        tiny.model.train().zero_grad()
        torch.manual_seed(7)
        Objective(tiny, replace(FP32, gradient_caching=caching), tokens)(torch.arange(50))["loss"].backward()
        found.append({name: p.grad.clone() for name, p in tiny.model.named_parameters() if p.grad is not None})
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-5) for name in found[0])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_is_repeatable_and_goes_on(tiny_folder, some_sentences, tmp_path, precision):
    """The same weights from the same seed, and from a run that was broken off and run again."""
    settings = replace(FP32, precision=precision)

    def train(cache, after_epoch=lambda epoch: None):
        encoder = load_encoder(str(tiny_folder), "mean", cache=cache)
        losses = fine_tune(encoder, some_sentences, settings, after_epoch)
        return losses, {name: value.cpu() for name, value in encoder.model.state_dict().items()}

    def stop(epoch):
        if epoch == 1:
            raise Killed

    (losses, weights), (again, weights_again) = train(None), train(None)
    assert losses == again and losses[-1] < losses[0]
    with pytest.raises(Killed):
        train(tmp_path, stop)
    resumed, weights_resumed = train(tmp_path)
    assert resumed == losses
    for others in (weights_again, weights_resumed):
        assert all(torch.equal(value, others[name]) for name, value in weights.items())
