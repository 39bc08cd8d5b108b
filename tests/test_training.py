import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import AutoConfig, AutoModel, AutoTokenizer

from src import objectives, training
from src.encoder import load_encoder
from src.losses import graded_loss, info_nce, relation_loss
from src.objectives import Objective, make_objective
from src.records import read_json
from src.settings import TrainingSettings
from src.targets import topic_and_facts
from src.training import Collapse, batch_loss, embed_texts, fine_tune
from tests.tiny_model import make_tiny_model

FAST = TrainingSettings("simcse", epochs=2, learning_rate=1e-3, batch_size=8, precision="fp32")  # 9 steps an epoch


def train(folder, sentences, settings=FAST, after_epoch=lambda epoch: None):
    """Train a fresh tiny model; the loss of every step and the embeddings after every epoch."""
    encoder, snapshots = load_encoder(str(folder), "mean"), {}

    def look(epoch):
        assert not encoder.model.training
        snapshots[epoch] = encoder.encode(sentences, progress=False)
        after_epoch(epoch)

    losses = fine_tune(encoder, sentences, settings, look)
    assert not encoder.model.training
    return losses, snapshots


@pytest.fixture(scope="module")
def simcse(tiny_folder, some_sentences):
    """An undisturbed run of two epochs."""
    return train(tiny_folder, some_sentences)


@pytest.fixture(scope="module")
def stiff_folder(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("models") / "stiff", dropout=0.0)


def test_sentences_that_cannot_work(tiny, some_sentences):
    with pytest.raises(ValueError, match=r"batch_size is 100.* only 72"):
        fine_tune(tiny, some_sentences, replace(FAST, batch_size=100))
    with pytest.raises(ValueError, match="1 training sentences are repeats"):
        fine_tune(tiny, [*some_sentences, some_sentences[0]], FAST)
    with pytest.raises(ValueError, match="row 73: 7 is no text"):
        fine_tune(tiny, [*some_sentences, 7], FAST)


def test_a_model_without_dropout_is_refused(stiff_folder, some_sentences):
    stiff = load_encoder(str(stiff_folder), "mean")
    before = stiff.encode(some_sentences, progress=False)
    with pytest.raises(
        ValueError, match=r"stiff has dropout 0 .*set hidden_dropout_prob, attention_probs_dropout_prob"
    ):
        fine_tune(stiff, some_sentences, FAST)
    assert np.array_equal(stiff.encode(some_sentences, progress=False), before)
    assert not stiff.model.training


def test_training_learns_and_is_deterministic(tiny_folder, tiny, some_sentences, simcse):
    losses, snapshots = simcse
    assert len(losses) == 18
    assert list(snapshots) == [1, 2]
    assert np.mean(losses[-6:]) < 0.9 * np.mean(losses[:6])
    assert np.abs(snapshots[1] - tiny.encode(some_sentences, progress=False)).max() > 1e-3
    torch.manual_seed(5)  # what was drawn before the run does not count
    again, same = train(tiny_folder, some_sentences)
    assert again == losses
    assert np.array_equal(same[2], snapshots[2])
    assert train(tiny_folder, some_sentences, replace(FAST, epochs=1, seed=1))[0] != losses[:9]


def test_epoch_1_of_two_is_a_run_of_one(tiny_folder, some_sentences, simcse):
    losses, snapshots = train(tiny_folder, some_sentences, replace(FAST, epochs=1))
    assert losses == simcse[0][:9]
    assert np.array_equal(snapshots[1], simcse[1][1])


def test_looking_changes_nothing(tiny_folder, some_sentences, simcse):
    def disturb(epoch):
        torch.manual_seed(epoch)
        torch.rand(1000)
        np.random.seed(epoch)

    blind = load_encoder(str(tiny_folder), "mean")
    assert fine_tune(blind, some_sentences, FAST) == simcse[0]
    assert np.array_equal(blind.encode(some_sentences, progress=False), simcse[1][2])
    losses, snapshots = train(tiny_folder, some_sentences, after_epoch=disturb)
    assert losses == simcse[0]
    assert np.array_equal(snapshots[2], simcse[1][2])


def test_the_two_views_differ_by_dropout_alone(tiny, some_sentences):
    """All views go through in one pass, sorted by length, each under dropout masks of its own: off in eval."""
    tokens, rows = tiny.tokenize(some_sentences), [5, 3, 60, 8]
    with torch.no_grad():
        alone = tiny.embed(tiny.pad([tokens[row] for row in rows]))
        doubled = [tokens[row] for row in rows for _ in range(2)]
        views = embed_texts(tiny, doubled).view(4, 2, -1)
        assert torch.allclose(views, torch.stack([alone, alone], 1), atol=1e-5)
        tiny.model.train()
        torch.manual_seed(1)
        first, second = embed_texts(tiny, doubled).view(4, 2, -1).unbind(1)
        torch.manual_seed(1)
        order = sorted(range(8), key=lambda view: -len(doubled[view]["input_ids"]))
        masked = tiny.embed(tiny.pad([doubled[view] for view in order]))[np.argsort(order)]
    assert torch.equal(first, masked[::2])
    assert torch.equal(second, masked[1::2])
    assert F.cosine_similarity(first, second).max() < 0.99999


def test_the_loss_is_that_of_the_objective(tiny, some_sentences, monkeypatch):
    """By hand, of the rows that it draws. Dropout is off."""
    pairs = graded(some_sentences)
    rows = np.array(some_sentences[:72]).reshape(24, 3).tolist()

    def embed(sentences):
        return tiny.embed(tiny.pad(tiny.tokenize(sentences)))

    def loss_and_rows(name, sentences, targets=None, pairs=None):
        monkeypatch.setattr(objectives, "topic_and_facts", lambda sentences, encode, facts: targets)
        settings = replace(FAST, objective=name, temperature=0.3, stretch=1.0)
        objective = make_objective(tiny, sentences, settings, pairs)
        return batch_loss(tiny, objective, 5, settings), objective.rows(5, 0).tolist()

    loss, chosen = loss_and_rows("supervised_simcse", rows)
    anchors, positives, hard = (embed([rows[row][column] for row in chosen]) for column in range(3))
    assert torch.allclose(loss, info_nce(anchors, positives, 0.3, hard), atol=1e-5)

    own = tiny.encode(some_sentences)
    loss, chosen = loss_and_rows("topic_and_facts", some_sentences, targets=own)
    assert loss.item() == pytest.approx(0, abs=1e-9)  # the targets are the model's own cosines
    other = own[::-1].copy()
    loss, _ = loss_and_rows("topic_and_facts", some_sentences, targets=other)
    wanted = torch.from_numpy(other[chosen])
    assert torch.allclose(loss, relation_loss(embed([some_sentences[row] for row in chosen]), wanted, 1.0), atol=1e-5)

    loss, of_pairs = loss_and_rows("graded_pairs", [], pairs=pairs)
    assert len(of_pairs) == len(set(of_pairs)) == 30  # all there are
    drawn = pairs.iloc[of_pairs]
    first, second = (embed(drawn[column].tolist()) for column in ("sentence1", "sentence2"))
    relatedness = torch.tensor(drawn["relatedness"].to_numpy(), dtype=torch.float32)
    assert torch.allclose(loss, graded_loss(first, second, relatedness), atol=1e-5)


def graded(sentences):
    """Thirty pairs of three grades."""
    table = pd.DataFrame({"sentence1": sentences[:30], "sentence2": sentences[30:60], "grade": [0, 1, 2] * 10})
    return table.assign(relatedness=table["grade"] / 2)


def test_the_cosines_of_graded_pairs_come_to_their_grades(tiny, some_sentences):
    pairs = graded(some_sentences)
    settings = replace(FAST, objective="graded_pairs", pair_steps=20, learning_rate=2e-3)
    losses = fine_tune(tiny, [], settings, pairs=pairs)
    assert len(losses) == 40
    cosines = (tiny.encode(pairs["sentence1"].tolist()) * tiny.encode(pairs["sentence2"].tolist())).sum(1)
    assert pd.Series(cosines).corr(pairs["grade"], method="spearman") > 0.4
    assert np.abs(pd.Series(cosines).groupby(pairs["grade"]).mean() - [0, 0.5, 1]).max() < 0.2


def test_graded_pairs_need_pairs(tiny, some_sentences):
    with pytest.raises(ValueError, match="graded_pairs learns from pairs"):
        fine_tune(tiny, some_sentences, replace(FAST, objective="graded_pairs"))
    pairs = graded(some_sentences)
    for few, message in (
        (pairs[:9], "9 graded pairs of 3 grades.*10 pairs or more"),
        (pairs[::3], "10 graded pairs of 1 grades"),
    ):
        with pytest.raises(ValueError, match=message):
            fine_tune(tiny, [], replace(FAST, objective="graded_pairs"), pairs=few)


def gradients(encoder, texts, gradient_caching):
    encoder.model.zero_grad()
    encoder.model.train()
    torch.manual_seed(7)
    loss = info_nce(*embed_texts(encoder, texts, gradient_caching).view(50, 2, -1).unbind(1), 0.05)
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in encoder.model.named_parameters() if p.grad is not None}


def test_gradient_caching_changes_no_gradient(tiny, some_sentences, monkeypatch):
    """Three chunks of 32 views and one of 4, dropout on: the masks are drawn once and replayed."""
    texts, passes, embed = [row for row in tiny.tokenize(some_sentences[:50]) for _ in range(2)], [], tiny.embed
    monkeypatch.setattr(
        type(tiny), "embed", lambda _, batch: passes.append(len(batch["attention_mask"])) or embed(batch)
    )
    plain = gradients(tiny, texts, False)
    assert passes == [32, 32, 32, 4]
    cached = gradients(tiny, texts, True)
    assert len(passes) == 4 + 8  # each is run again
    assert cached[0] == pytest.approx(plain[0], abs=1e-6)
    assert cached[1].keys() == plain[1].keys()
    for name, gradient in plain[1].items():
        assert torch.allclose(cached[1][name], gradient, atol=1e-6), name
    assert max(gradient.abs().max() for gradient in plain[1].values()) > 1e-2


def test_warm_up_and_clipping(tiny_folder, some_sentences):
    """Seen where the optimizer takes its step: 24 steps an epoch, of which a tenth warm up."""
    rates, norms = [], []

    def look(optimizer, *_):
        (group,) = optimizer.param_groups
        rates.append(group["lr"])
        norms.append(torch.stack([p.grad.norm() for p in group["params"] if p.grad is not None]).norm().item())

    hook = register_optimizer_step_pre_hook(look)
    try:
        train(tiny_folder, some_sentences, replace(FAST, batch_size=3))
    finally:
        hook.remove()
    assert rates == pytest.approx([1e-3 * min(1, step / 2.4) for step in range(1, 49)])
    assert max(norms) == pytest.approx(1, abs=1e-3)  # clipped
    assert min(norms) < 0.9  # and only where it is longer


def test_each_sentence_is_used_once_an_epoch_at_most():
    """72 sentences in batches of 10: two are left over, and the next epoch's order is another."""
    objective = Objective([[{}] * 72], lambda embeddings, _: embeddings.sum(), 10)
    epochs = [[row for step in steps for row in objective.rows(step, 0)] for steps in (range(7), range(7, 14))]
    for rows in epochs:
        assert len(rows) == len(set(rows)) == 70
        assert set(rows) < set(range(72))
    assert epochs[0] != epochs[1] != sorted(epochs[1])
    assert objective.rows(3, 0).tolist() == epochs[0][30:40] != objective.rows(3, 1).tolist()


@pytest.mark.parametrize("objective", ["simcse", "topic_and_facts"])
def test_bf16_learns_much_the_same_and_its_loss_is_fp32(tiny_folder, some_sentences, monkeypatch, objective):
    settings, seen = replace(FAST, objective=objective), []
    fp32 = train(tiny_folder, some_sentences, settings)[0]
    name = "info_nce" if objective == "simcse" else "relation_loss"
    loss = getattr(objectives, name)

    def look(embeddings, *others):
        seen.append((embeddings.dtype, torch.is_autocast_enabled("cpu")))
        return loss(embeddings, *others)

    monkeypatch.setattr(objectives, name, look)
    bf16 = train(tiny_folder, some_sentences, replace(settings, precision="bf16"))[0]
    assert seen == [(torch.float32, False)] * 18
    assert fp32 != bf16
    assert np.allclose(fp32, bf16, atol=0.15)


def test_a_loss_that_is_not_finite_stops_the_run(tiny, some_sentences):
    tiny.model.encoder.layer[0].output.dense.weight.data[:] = torch.inf
    with pytest.raises(Collapse, match=r"loss is nan at step 1:.* as it was at step 0"):
        fine_tune(tiny, some_sentences, FAST)
    assert not tiny.model.training


def test_topic_and_facts_learns_its_targets_without_dropout(stiff_folder, some_sentences):
    """One view is enough, so a model without dropout will do."""
    stiff = load_encoder(str(stiff_folder), "mean")
    targets = topic_and_facts(some_sentences, lambda s: stiff.encode(s, progress=False), FAST.facts)
    before = stiff.encode(some_sentences, progress=False)
    settings = replace(FAST, objective="topic_and_facts", epochs=4)
    losses = fine_tune(stiff, some_sentences, settings)
    after = stiff.encode(some_sentences, progress=False)
    assert np.mean(losses[-9:]) < 0.8 * np.mean(losses[:9])
    others = ~np.eye(len(targets), dtype=bool)
    wanted = (targets @ targets.T)[others]
    agreement = [np.corrcoef((x @ x.T)[others], wanted)[0, 1] for x in (before, after)]
    assert agreement[1] > agreement[0] + 0.05


@pytest.mark.parametrize("columns", [2, 3])
def test_supervised_simcse_learns_from_pairs_and_triplets(tiny, some_sentences, columns):
    rows = list(zip(*(some_sentences[k * 24 : (k + 1) * 24] for k in range(columns))))
    losses = fine_tune(tiny, rows, replace(FAST, objective="supervised_simcse", temperature=0.2, epochs=4))
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


@pytest.mark.parametrize(
    ("positives", "negatives", "message"),
    [
        (["same"] * 16, None, "15 training sentences are repeats"),
        (None, ["same"] * 16, "all hard negatives are the same"),
        (None, "positives", "a row of training data holds one sentence twice"),
    ],
)
def test_rows_that_teach_nothing_are_refused(tiny, some_sentences, positives, negatives, message):
    positives = positives or some_sentences[16:32]
    negatives = positives if negatives == "positives" else negatives or some_sentences[32:48]
    with pytest.raises(ValueError, match=message):
        fine_tune(tiny, list(zip(some_sentences, positives, negatives)), replace(FAST, objective="supervised_simcse"))


def test_rows_of_other_lengths_are_refused(tiny, some_sentences):
    settings, halves = (
        replace(FAST, objective="supervised_simcse"),
        list(zip(some_sentences[::2], some_sentences[1::2])),
    )
    for wrong, lengths in ((some_sentences, "1"), ([*halves, ("one", "more", "here")], "2 or 3")):
        with pytest.raises(ValueError, match=rf"have {lengths}$"):
            fine_tune(tiny, wrong, settings)


def collapse(model, kind):
    last = model.encoder.layer[-1].output.LayerNorm
    with torch.no_grad():
        if kind == "mean":  # one direction for all
            last.weight.mul_(1e-4)
            last.bias.fill_(1.0)
        elif kind == "equal":  # and no step moves them apart
            last.weight.mul_(0).requires_grad_(False)
            last.bias.fill_(1.0).requires_grad_(False)
        else:  # two
            last.weight.mul_(0)
            last.weight[:2] = 1
            last.bias.mul_(0)


@pytest.mark.parametrize(
    ("kind", "reason"), [("mean", r"mean cosine is 1\.00"), ("rank", r"rank is \d"), ("equal", "mean cosine is nan")]
)
def test_a_collapse_stops_the_run_and_gives_back_the_model(tiny, some_sentences, kind, reason, monkeypatch):
    """The weights are pushed into a real collapse at step 9 of 9; the guard looks at steps 5 and 9."""
    steps, healthy = [], {}

    def push(*arguments):
        steps.append(arguments)
        if len(steps) == 6:
            healthy.update({name: value.clone() for name, value in tiny.model.state_dict().items()})
        if len(steps) == 9:
            collapse(tiny.model, kind)
        return embed_texts(*arguments)

    monkeypatch.setattr(training, "embed_texts", push)
    with pytest.raises(Collapse, match=rf"{reason}.* at step 9.* as it was at step 5\. Lower"):
        fine_tune(tiny, some_sentences, FAST)
    assert all(torch.equal(value, healthy[name]) for name, value in tiny.model.state_dict().items())
    assert not tiny.model.training


SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "pad_token_id": 0,
}
SPECIAL = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "mpnet", "modernbert"])
def test_every_kind_of_encoder_embeds_in_training_as_it_does_in_evaluation(tiny_folder, tmp_path, some_sentences, kind):
    """Padding must not change the positions that a model gives its tokens."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    tokenizer.save_pretrained(tmp_path)
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), max_position_embeddings=66, **SMALL, **SPECIAL)
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path), "mean")
    tokens = encoder.tokenize([*some_sentences[:5], "a far longer sentence, of many more words than all of the others"])
    with torch.no_grad():
        together = embed_texts(encoder, tokens)
        alone = torch.cat([encoder.embed(encoder.pad([row])) for row in tokens])
    assert torch.allclose(together, alone, atol=1e-5)
    settings = replace(FAST, epochs=1)
    if kind == "modernbert":
        with pytest.raises(ValueError, match="set attention_dropout, embedding_dropout, mlp_dropout"):
            fine_tune(encoder, some_sentences, settings)
        settings = replace(settings, objective="topic_and_facts")
    assert len(fine_tune(encoder, some_sentences, settings)) == 9


def command(monkeypatch, tmp_path, **parameters):
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"fine_tune": parameters}))
    monkeypatch.setattr(sys, "argv", ["src.training", str(path)])
    training.main()


def test_the_command_trains_and_saves(tiny_folder, some_sentences, tmp_path, monkeypatch, capsys):
    (tmp_path / "own.txt").write_text("\n".join(some_sentences))
    common = {"model": str(tiny_folder), "pooling": "mean", "batch_size": 8, "saved_model": str(tmp_path / "saved")}
    common |= {"cache_folder": None, "learning_rate": 1e-3}
    own = {"corpus_path": str(tmp_path / "own.txt"), "duplicates_from": None, "train_sentences": 40}
    command(monkeypatch, tmp_path, **common, **own, objective="simcse", temperature=0.4)
    assert str(tmp_path / "saved") in capsys.readouterr().out
    record = read_json(tmp_path / "saved" / "training.json")
    assert (record["temperature"], record["rows"], record["corpus"]) == (0.4, 40, own["corpus_path"])
    base, tuned = (load_encoder(str(folder), "mean") for folder in (tiny_folder, tmp_path / "saved"))
    assert tuned.weights_checksum() != base.weights_checksum()
    rows = pd.DataFrame({"anchor": some_sentences[:16], "positive": some_sentences[16:32]})
    rows.to_csv(tmp_path / "triplets.csv", index=False)
    supervised = {"objective": "supervised_simcse", "triplets_path": str(tmp_path / "triplets.csv")}
    command(monkeypatch, tmp_path, **common, **supervised)
    assert read_json(tmp_path / "saved" / "training.json")["objective"] == "supervised_simcse"
    with pytest.raises(SystemExit, match="name a file as pairs_path"):  # not those of the sport corpus
        command(monkeypatch, tmp_path, **common, **own)
    graded = pd.DataFrame(
        {"sentence1": some_sentences[:32], "sentence2": some_sentences[32:64], "grade": [0, 2, 4, 1] * 8}
    )
    graded.to_csv(tmp_path / "pairs.csv", index=False)
    command(monkeypatch, tmp_path, **common, corpus_path="not read", pairs_path=str(tmp_path / "pairs.csv"))
    record = read_json(tmp_path / "saved" / "training.json")
    assert (record["objective"], record["rows"]) == ("graded_pairs", 12)  # as the splits were drawn
    with pytest.raises(SystemExit, match=r"^Stopped\. there is no file .*typo\.csv$"):
        command(monkeypatch, tmp_path, **common, **(own | {"corpus_path": "typo.csv", "objective": "simcse"}))


def test_the_command_refuses_a_misspelt_parameter(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="'temprature'"):
        command(monkeypatch, tmp_path, temprature=0.1)


def test_pairs_that_share_their_first_sentence_are_no_collapse(tiny, some_sentences):
    """One query with graded answers: the guard must look at the answers, too."""
    pairs = graded(some_sentences).assign(sentence1=some_sentences[0])
    settings = replace(FAST, objective="graded_pairs", pair_steps=8, epochs=1)
    assert len(fine_tune(tiny, [], settings, pairs=pairs)) == 8
