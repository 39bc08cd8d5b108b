"""What is different on a GPU, held against the CPU. `make test` skips it; `make test-gpu` runs it, and needs a GPU."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from src import encoder as encoder_module
from src import objectives, training
from src.encoder import load_encoder
from src.objectives import make_objective
from src.settings import TrainingSettings
from src.similarity import pairwise_distribution
from src.training import batch_loss, embed_texts, fine_tune

if os.environ.get("TESTS_OF") == "gpu" and not torch.cuda.is_available():
    pytest.fail("make test-gpu needs a GPU, and torch sees none: nothing was tested", pytrace=False)
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is visible")
FP32 = TrainingSettings("simcse", epochs=2, batch_size=16, learning_rate=1e-3, precision="fp32")  # 4 steps an epoch


class Stopped(Exception):
    pass


def test_what_is_chosen_on_a_gpu(tiny):
    assert tiny.model.device.type == "cuda"
    assert TrainingSettings().bf16 == torch.cuda.is_bf16_supported(including_emulation=False)
    assert tiny.model.config._attn_implementation == "sdpa"
    assert next(tiny.model.parameters()).dtype == torch.float32  # what is evaluated


def test_embeddings_are_those_of_the_cpu(tiny, some_sentences, monkeypatch):
    on_gpu = [tiny.encode(some_sentences, progress=False)]
    monkeypatch.setattr(encoder_module, "GPU_TOKENS", 64)  # several batches
    on_gpu.append(tiny.encode(some_sentences, progress=False))
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
def test_loss_and_gradient_are_those_of_the_cpu(tiny, some_sentences, objective, monkeypatch):
    """Dropout is off, because the two devices draw other masks."""
    targets = F.normalize(torch.randn(len(some_sentences), 8)).numpy()
    settings, results = replace(FP32, objective=objective, temperature=0.4), []
    monkeypatch.setattr(objectives, "topic_and_facts", lambda sentences, encode, facts: targets)
    objective = make_objective(tiny, some_sentences, settings)
    for device in ("cuda", "cpu"):
        tiny.model.to(device).eval()
        tiny.model.zero_grad()
        loss = batch_loss(tiny, objective, 0, settings)
        loss.backward()
        gradients = {name: p.grad.cpu().clone() for name, p in tiny.model.named_parameters() if p.grad is not None}
        results.append((loss.item(), gradients))
    (on_gpu, gradients), (on_cpu, expected) = results
    assert on_gpu == pytest.approx(on_cpu, abs=1e-5)
    assert all(torch.allclose(gradients[name], expected[name], atol=1e-5) for name in expected)


def test_gradient_caching_replays_the_masks(tiny, some_sentences, monkeypatch):
    for name in ("GPU_CHUNK", "CACHED_GPU_CHUNK"):
        monkeypatch.setattr(training, name, 16)  # several chunks
    objective, results = make_objective(tiny, some_sentences, FP32), []
    tiny.model.train()
    for caching in (False, True):
        torch.manual_seed(7)
        tiny.model.zero_grad()
        batch_loss(tiny, objective, 0, replace(FP32, gradient_caching=caching)).backward()
        results.append({name: p.grad.clone() for name, p in tiny.model.named_parameters() if p.grad is not None})
    assert all(torch.allclose(results[0][name], results[1][name], atol=1e-5) for name in results[0])


def test_the_loss_is_fp32_where_the_model_runs_in_bf16(tiny, some_sentences, monkeypatch):
    seen, loss = [], objectives.info_nce

    def look(anchors, *others):
        seen.append((anchors.dtype, torch.is_autocast_enabled(anchors.device.type)))
        return loss(anchors, *others)

    monkeypatch.setattr(objectives, "info_nce", look)
    losses = fine_tune(tiny, some_sentences, replace(FP32, precision="bf16"))
    assert losses[-1] < losses[0]
    assert seen == [(torch.float32, False)] * 8


@pytest.mark.parametrize("objective", ["simcse", "topic_and_facts"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_is_repeatable_and_goes_on(tiny_folder, some_sentences, tmp_path, monkeypatch, objective, precision):
    """The same weights from the same seed, and from a run that was broken off in its second epoch and run again."""

    def train(cache):
        encoder = load_encoder(str(tiny_folder), "mean", cache=cache)
        losses = fine_tune(encoder, some_sentences, replace(FP32, objective=objective, precision=precision))
        return losses, {name: value.cpu() for name, value in encoder.model.state_dict().items()}

    (losses, weights), (again, weights_again) = train(None), train(None)
    assert losses == again
    with monkeypatch.context() as patch:
        steps = []

        def stop(*arguments):
            steps.append(arguments)
            if len(steps) == 6:
                raise Stopped
            return embed_texts(*arguments)

        patch.setattr(training, "embed_texts", stop)
        with pytest.raises(Stopped):
            train(tmp_path)
    resumed, weights_resumed = train(tmp_path)
    assert resumed == losses
    for others in (weights_again, weights_resumed):
        assert all(torch.equal(value, others[name]) for name, value in weights.items())
