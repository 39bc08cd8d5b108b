from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModel, AutoTokenizer

from src.encoder import load_encoder
from src.losses import info_nce, take_apart, topic_and_facts
from src.training import Collapse, Objective, TrainingSettings, _embed, fine_tune
from tests.tiny_model import make_tiny_model

FAST = TrainingSettings(epochs=2, learning_rate=1e-3, batch_size=8, precision="fp32")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": 0.0}, r"temperature is 0\.0: it must be above 0"),
        ({"temperature": -0.1}, r"temperature is -0\.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"epochs": 0}, "epochs is 0: it must be a whole number, 1 or more"),
        ({"epochs": -1}, "epochs is -1"),
        ({"batch_size": 1}, "batch_size is 1: without a second sentence there are no negatives"),
        ({"learning_rate": 0.0}, r"learning_rate is 0\.0"),
        ({"precision": "fp8"}, "precision is 'fp8': expected auto, fp32 or bf16"),
        (
            {"objective": "triplet"},
            "objective is 'triplet': expected one of simcse, supervised_simcse, topic_and_facts",
        ),
        ({"facts": 1.1}, r"facts is 1\.1: it is a share, from 0"),
        ({"stretch": 0.0}, r"stretch is 0\.0: it must be above 0"),
    ],
)
def test_settings_that_cannot_work(values, message):
    with pytest.raises(ValueError, match=message):
        TrainingSettings(**values)


def test_sentences_that_cannot_work(tiny, some_sentences):
    with pytest.raises(ValueError, match="batch_size is 100, but there are only 72 training sentences"):
        fine_tune(tiny, some_sentences, TrainingSettings(batch_size=100))
    with pytest.raises(ValueError, match="1 training sentences are repeats: each would be a false negative"):
        fine_tune(tiny, [*some_sentences, some_sentences[0]], FAST)
    with pytest.raises(ValueError, match="row 73: 7 is no text"):
        fine_tune(tiny, [*some_sentences, 7], FAST)


def test_a_model_without_dropout_is_refused(tmp_path, some_sentences):
    stiff = load_encoder(str(make_tiny_model(tmp_path / "stiff", dropout=0.0)), "mean")
    before = stiff.encode(some_sentences, progress=False)
    message = "stiff has dropout 0 everywhere, both views .* set hidden_dropout_prob, attention_probs_dropout_prob in its config"
    with pytest.raises(ValueError, match=message):
        fine_tune(stiff, some_sentences, FAST)
    assert np.array_equal(stiff.encode(some_sentences, progress=False), before)


def train(folder, sentences, settings=FAST):
    """Train a fresh tiny model; the loss of every step and the embeddings after every epoch."""
    encoder, snapshots = load_encoder(str(folder), "mean"), {}
    losses = fine_tune(
        encoder, sentences, settings, lambda e: snapshots.update({e: encoder.encode(sentences, progress=False)})
    )
    return losses, snapshots


def test_training_learns_and_is_deterministic(tiny_folder, tiny, some_sentences):
    longer = TrainingSettings(epochs=6, learning_rate=1e-3, batch_size=8, precision="fp32")
    losses, snapshots = train(tiny_folder, some_sentences, longer)
    assert len(losses) == 54
    assert list(snapshots) == [1, 2, 3, 4, 5, 6]
    assert np.mean(losses[-9:]) < 0.9 * np.mean(losses[:9])
    assert np.abs(snapshots[1] - tiny.encode(some_sentences, progress=False)).max() > 1e-3
    again, same = train(tiny_folder, some_sentences, longer)
    assert again == losses
    assert np.array_equal(same[6], snapshots[6])


def test_epoch_1_of_two_is_a_run_of_one_and_looking_changes_nothing(tiny_folder, some_sentences):
    _, two = train(tiny_folder, some_sentences)
    _, one = train(
        tiny_folder, some_sentences, TrainingSettings(epochs=1, learning_rate=1e-3, batch_size=8, precision="fp32")
    )
    assert np.array_equal(one[1], two[1])
    blind = load_encoder(str(tiny_folder), "mean")
    fine_tune(blind, some_sentences, FAST)
    assert not blind.model.training
    assert np.array_equal(blind.encode(some_sentences, progress=False), two[2])

    noisy = load_encoder(str(tiny_folder), "mean")
    fine_tune(noisy, some_sentences, FAST, lambda epoch: torch.rand(1000))
    assert np.array_equal(noisy.encode(some_sentences, progress=False), two[2])


def test_the_two_views_differ_by_dropout_alone(tiny, some_sentences):
    """The module's loss is info_nce of two views under dropout masks of their own: off in eval, on in train."""
    tokens = tiny.tokenize(some_sentences)
    objective, rows = Objective(tiny, FAST, [tokens, tokens]), torch.tensor([5, 3, 60, 8])
    batch = tiny.tokenizer.pad([tokens[row] for row in [*rows, *rows]], return_tensors="pt")
    objective.eval()
    with torch.no_grad():
        embeddings = tiny.embed(batch)[:4]
        assert torch.allclose(objective(rows)["loss"], info_nce(embeddings, embeddings, 0.05), atol=1e-4)
        objective.train()
        torch.manual_seed(1)
        loss = objective(rows)["loss"]
        torch.manual_seed(1)
        order = sorted(range(8), key=lambda view: -len(tokens[[*rows, *rows][view]]["input_ids"]))
        masked = tiny.embed({name: values[order] for name, values in batch.items()})
        first, second = masked[np.argsort(order)].chunk(2)
    assert torch.allclose(loss, info_nce(first, second, 0.05), atol=1e-5)
    assert F.cosine_similarity(first, second).max() < 0.99999


def gradients(encoder, tokens, rows, settings):
    encoder.model.zero_grad()
    encoder.model.train()
    torch.manual_seed(7)
    loss = Objective(encoder, settings, tokens)(rows)["loss"]
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in encoder.model.named_parameters() if p.grad is not None}


def test_gradient_caching_changes_no_gradient(tiny, some_sentences):
    """Three chunks of 32 views and one of 4, dropout on: the masks are drawn once and replayed."""
    tokens, rows = [tiny.tokenize(some_sentences)] * 2, torch.arange(50)
    plain, cached = (
        gradients(tiny, tokens, rows, replace(FAST, gradient_caching=caching)) for caching in (False, True)
    )
    assert cached[0] == pytest.approx(plain[0], abs=1e-6)
    assert cached[1].keys() == plain[1].keys()
    for name, gradient in plain[1].items():
        assert torch.allclose(cached[1][name], gradient, atol=1e-6), name
    assert max(gradient.abs().max() for gradient in plain[1].values()) > 1e-2


def test_a_ragged_last_batch_and_the_mlp_head(tiny_folder, some_sentences):
    settings = TrainingSettings(epochs=1, batch_size=7, mlp_head=True, precision="fp32", learning_rate=1e-3)
    encoder = load_encoder(str(tiny_folder), "mean")
    names = list(encoder.model.state_dict())
    assert len(fine_tune(encoder, some_sentences, settings)) == 11  # ten of 7 and one of 2
    assert list(encoder.model.state_dict()) == names


def test_bf16_learns_much_the_same(tiny_folder, some_sentences):
    fp32, bf16 = (train(tiny_folder, some_sentences, replace(FAST, precision=p))[0] for p in ("fp32", "bf16"))
    assert np.allclose(fp32, bf16, atol=0.15)
    assert fp32 != bf16


def test_a_loss_that_is_not_finite_stops_the_run(tiny_folder, some_sentences):
    encoder = load_encoder(str(tiny_folder), "mean")
    encoder.model.encoder.layer[0].output.dense.weight.data[:] = torch.inf
    with pytest.raises(Collapse, match="the loss is nan at step 1: stopped, and the model is as it was at step 0"):
        fine_tune(encoder, some_sentences, FAST)


def test_topic_and_facts_learns_its_targets_without_dropout(tmp_path, some_sentences):
    """One view is enough, so a model without dropout will do."""
    stiff = load_encoder(str(make_tiny_model(tmp_path / "stiff", dropout=0.0)), "mean")
    targets = topic_and_facts(*take_apart(some_sentences, lambda s: stiff.encode(s, progress=False)), 0.7)
    before = stiff.encode(some_sentences, progress=False)
    settings = TrainingSettings(4, learning_rate=1e-3, batch_size=8, precision="fp32", objective="topic_and_facts")
    losses = fine_tune(stiff, some_sentences, settings)
    after = stiff.encode(some_sentences, progress=False)
    assert np.mean(losses[-9:]) < 0.8 * np.mean(losses[:9])
    others = ~np.eye(len(targets), dtype=bool)
    wanted = (targets @ targets.T)[others]
    agreement = [np.corrcoef((x @ x.T)[others], wanted)[0, 1] for x in (before, after)]
    assert agreement[1] > agreement[0] + 0.05


def test_supervised_simcse_learns_from_pairs_and_triplets(tiny_folder, some_sentences):
    settings = replace(FAST, objective="supervised_simcse", temperature=0.2, epochs=4)
    third = len(some_sentences) // 3
    rows = list(zip(*(some_sentences[k * third : (k + 1) * third] for k in range(3))))
    for columns in (2, 3):
        encoder = load_encoder(str(tiny_folder), "mean")
        losses = fine_tune(encoder, [row[:columns] for row in rows], settings)
        assert np.mean(losses[-3:]) < np.mean(losses[:3])
    for wrong, lengths in ((some_sentences, "1"), ([row[:2] for row in rows[:9]] + rows[9:], "2 or 3")):
        with pytest.raises(ValueError, match=rf"learns from rows of \(anchor, positive\).* these have {lengths} sent"):
            fine_tune(encoder, wrong, settings)


@pytest.mark.parametrize(
    ("measure", "reason"),
    [
        ("mean", "the mean cosine is 1.00"),
        ("rank", r"the effective rank is \d"),
        ("equal", "the mean cosine is nan"),
    ],
)
def test_a_collapse_stops_the_run_and_gives_back_the_model(tiny_folder, some_sentences, measure, reason, monkeypatch):
    """The weights are pushed into a real collapse at step 5; the guard looks at steps 2, 4, 6 of 9."""
    encoder = load_encoder(str(tiny_folder), "mean")
    weights = encoder.model.state_dict()
    healthy = {}

    def collapse(objective, *arguments, **inputs):
        nonlocal healthy
        if (steps := collapse.steps) == 4:
            healthy = {name: value.clone() for name, value in weights.items()}
        if steps == 5:
            last = encoder.model.encoder.layer[-1].output.LayerNorm
            with torch.no_grad():
                if measure == "mean":  # one direction for all
                    last.weight.mul_(1e-4)
                    last.bias.fill_(1.0)
                elif measure == "equal":  # and no step moves them apart
                    last.weight.mul_(0).requires_grad_(False)
                    last.bias.fill_(1.0).requires_grad_(False)
                else:  # two opposite ones
                    last.weight.mul_(0)
                    last.weight[0] = 1
                    last.bias.mul_(0)
        collapse.steps += 1
        return forward(objective, *arguments, **inputs)

    collapse.steps, forward = 0, Objective.forward
    monkeypatch.setattr(Objective, "forward", collapse)
    with pytest.raises(Collapse, match=rf"{reason}.* at step 6, it was .*the model is as it was at step 4\. Lower"):
        fine_tune(encoder, some_sentences, FAST)
    assert all(torch.equal(value, healthy[name]) for name, value in encoder.model.state_dict().items())
    assert not encoder.model.training


SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "pad_token_id": 0,
}


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "mpnet", "modernbert"])
def test_every_kind_of_encoder_embeds_in_training_as_it_does_in_evaluation(tiny_folder, tmp_path, some_sentences, kind):
    """Words looked up beforehand must not change the positions that a model gives them, nor what padding is."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    tokenizer.save_pretrained(tmp_path)
    special = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), max_position_embeddings=66, **SMALL, **special)
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path), "mean")
    tokens = encoder.tokenize([*some_sentences[:5], "a far longer sentence, of many more words than all of the others"])
    with torch.no_grad():
        embeddings = _embed(encoder, tokens)
        alone = torch.cat([encoder.embed(encoder.tokenizer.pad([row], return_tensors="pt")) for row in tokens])
    assert torch.allclose(embeddings, alone, atol=1e-5)
    settings = replace(FAST, epochs=1)
    if kind == "modernbert":
        with pytest.raises(ValueError, match="set attention_dropout, embedding_dropout, mlp_dropout in its config"):
            fine_tune(encoder, some_sentences, settings)
    else:
        assert len(fine_tune(encoder, some_sentences, settings)) == 9
    assert len(fine_tune(encoder, some_sentences, replace(settings, objective="topic_and_facts"))) == 9


def test_a_decoder_is_refused(tiny_folder, tmp_path):
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(tmp_path)
    AutoModel.from_config(AutoConfig.for_model("gpt2", n_embd=32, n_layer=1, n_head=2, vocab_size=99)).save_pretrained(
        tmp_path
    )
    with pytest.raises(
        ValueError, match=r"is a decoder \(gpt2\), whose tokens see nothing after them: an encoder is needed"
    ):
        load_encoder(str(tmp_path), "mean")
