import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss

from src.losses import _with_neighbours, info_nce, relation_loss, take_apart, topic_and_facts

temperatures = st.floats(0.05, 2)


@given(st.integers(2, 9), temperatures, st.integers(0, 99))
def test_equals_pytorch_metric_learning(batch, temperature, seed):
    torch.manual_seed(seed)
    anchors, positives = torch.randn(2, batch, 8)
    oracle = SelfSupervisedLoss(NTXentLoss(temperature=temperature), symmetric=False)
    assert info_nce(anchors, positives, temperature).item() == pytest.approx(
        oracle(anchors, positives).item(), abs=1e-4
    )


@given(st.integers(2, 64), temperatures)
def test_collapsed_embeddings_lose_ln_n(batch, temperature):
    same = torch.ones(batch, 5)
    assert info_nce(same, same, temperature).item() == pytest.approx(math.log(batch), abs=1e-4)


@given(st.integers(2, 16), temperatures)
def test_orthonormal_pairs(batch, temperature):
    eye = torch.eye(batch)
    expected = math.log(1 + (batch - 1) * math.exp(-1 / temperature))
    assert info_nce(eye, eye, temperature).item() == pytest.approx(expected, abs=1e-4)


def test_length_of_the_vectors_does_not_matter():
    anchors, positives = torch.randn(2, 6, 8)
    scaled = info_nce(anchors * torch.rand(6, 1).add(0.1), positives * 3, 0.1)
    assert torch.allclose(scaled, info_nce(anchors, positives, 0.1), atol=1e-5)


def test_one_row_is_the_logsumexp_of_its_own_negatives():
    anchors, positives = F.normalize(torch.randn(2, 4, 8), dim=-1)
    by_hand = [torch.logsumexp(anchors[i] @ positives.T / 0.2, 0) - anchors[i] @ positives[i] / 0.2 for i in range(4)]
    assert torch.allclose(info_nce(anchors, positives, 0.2), torch.stack(by_hand).mean(), atol=1e-5)


def test_hard_negatives_stand_in_the_denominator():
    anchors, positives, hard = F.normalize(torch.randn(3, 5, 8), dim=-1)
    others = torch.cat([positives, hard])
    by_hand = [torch.logsumexp(anchors[i] @ others.T / 0.2, 0) - anchors[i] @ positives[i] / 0.2 for i in range(5)]
    assert torch.allclose(info_nce(anchors, positives, 0.2, hard), torch.stack(by_hand).mean(), atol=1e-5)
    twice = info_nce(anchors, positives, 0.2, positives)  # the denominator doubles
    assert torch.allclose(twice, info_nce(anchors, positives, 0.2) + math.log(2), atol=1e-5)


def test_relation_loss_is_the_mean_over_other_rows_by_hand():
    embeddings, targets = torch.randn(4, 6), F.normalize(torch.randn(4, 9), dim=-1)
    total = 0
    for i in range(4):
        gaps = [
            F.cosine_similarity(embeddings[i], embeddings[j], dim=0) - 1.5 * targets[i] @ targets[j]
            for j in range(4)
            if j != i
        ]
        total += torch.stack(gaps).var(correction=0)
    assert torch.allclose(relation_loss(embeddings, targets, 1.5), total / 4, atol=1e-5)


@given(st.floats(0.1, 5), st.integers(0, 99))
def test_relation_loss_is_zero_where_cosines_follow_the_targets(stretch, seed):
    torch.manual_seed(seed)
    rows = F.normalize(torch.randn(5, 8), dim=-1)
    assert relation_loss(3 * rows, rows, 1.0) == pytest.approx(0, abs=1e-9)
    assert relation_loss(torch.ones(5, 3), rows[:1].expand(5, 8), stretch) == pytest.approx(0, abs=1e-9)
    assert relation_loss(rows, rows, 1 + stretch) > 0
    assert relation_loss(rows[:2], rows[2:4], stretch) == 0  # one other row: its difference is the constant


def test_an_offset_that_all_cosines_share_costs_nothing():
    rows = F.normalize(torch.randn(6, 8), dim=-1)
    lifted = torch.cat([rows, torch.ones(6, 1)], dim=1)  # cosines (c + 1) / 2
    assert relation_loss(lifted, rows, 0.5) == pytest.approx(0, abs=1e-9)


SENTENCES = [
    f"{who} {what}"
    for what in ("scored the winning goal in the cup final", "rowed the boat across the lake in record time")
    for who in ("Anna Rossi", "Bo Lind", "Carla Meyer", "Dmitri Popov")
]


def test_neighbours_are_looked_for_in_blocks_and_among_some(unit_rows):
    rows = np.vstack([unit_rows(300, 16, seed) + offset for seed, offset in ((0, 0.2), (1, -0.2))]).astype(np.float64)
    whole = _with_neighbours(rows, 8)
    assert np.allclose(_with_neighbours(rows, 8, block=7), whole)
    assert np.allclose(_with_neighbours(rows, None), _with_neighbours(rows, 3))  # one in 192 of 600
    near = np.square(rows[:, None] - rows).sum(-1) + 9 * np.eye(600)
    by_hand = rows + rows[np.argsort(near)[:, :8]].mean(1)
    by_hand -= by_hand.mean(0)
    assert np.allclose(whole, by_hand / np.linalg.norm(by_hand, axis=1, keepdims=True))
    some = _with_neighbours(rows, 4, among=300)  # half the rows, half the neighbours
    assert (some * whole).sum(1).min() > 0.8


def test_topic_and_facts_take_an_embedding_apart():
    """An encoder that knows one direction a name and one an event: facts = 0 sees events alone, facts = 1 names alone."""
    names = sorted({word for sentence in SENTENCES for word in sentence.split()[:2]})

    def encode(sentences):
        rows = np.zeros((len(sentences), len(names) + 2), np.float32)
        for row, sentence in zip(rows, sentences):
            row[-2 if "goal" in sentence else -1] = 1
            row[[names.index(word) for word in names if word in sentence]] = 0.7
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    inside = [f"Yesterday {sentence}" for sentence in SENTENCES]  # names are known by capitals inside a sentence
    same_event = np.kron(np.eye(2), np.ones((4, 4))) > 0
    parts = take_apart(inside, encode, copies=32)
    topic, facts = (topic_and_facts(*parts, share) for share in (0.0, 1.0))
    assert np.allclose(np.linalg.norm(topic, axis=1), 1, atol=1e-5)
    assert (topic @ topic.T)[same_event].min() > 0.8
    assert (topic @ topic.T)[~same_event].max() < -0.5
    same_name = np.tile(np.eye(4), (2, 2)) > 0
    assert (facts @ facts.T)[same_name].min() > (facts @ facts.T)[~same_name].max() + 0.3


def test_sentences_without_names_are_not_all_alike():
    """Most have none in many domains; nothing of them goes when names are swapped, and nothings must not be the same."""
    rng, verbs = np.random.default_rng(0), "opens reads writes closes parses sorts joins splits maps folds".split()
    plain = [f"it {a} the file and {b} a line" for a in verbs for b in verbs]
    named = [f"then {a} calls Ada {n}" for n, a in enumerate(verbs)]
    words = {}

    def encode(sentences):
        rows = [sum(words.setdefault(w, rng.standard_normal(32)) for w in sentence.split()) for sentence in sentences]
        return np.array(rows, np.float32) / np.linalg.norm(rows, axis=1, keepdims=True).astype(np.float32)

    shared_by_none = ["".join(rng.choice(list("日本語文章単位"), 12)) for _ in range(100)]  # a script without spaces
    for sentences in (plain, plain + named, plain + named[:1], shared_by_none):
        _, facts = take_apart(sentences, encode)
        assert np.allclose(np.linalg.norm(facts, axis=1), 1, atol=1e-5)
        cosines = (facts @ facts.T)[np.triu_indices(len(plain), 1)]
        assert np.quantile(cosines, 0.95) < 0.7
        assert abs(cosines.mean()) < 0.1


def test_copies_that_get_too_long_are_not_warned_of(recwarn, tiny):
    tiny.max_length = 9
    with pytest.warns(UserWarning, match="longer than max_length"):
        tiny.tokenize(SENTENCES)
    recwarn.clear()
    take_apart(SENTENCES, lambda sentences: (tiny.tokenize(sentences), np.eye(8, dtype=np.float32))[1])
    assert len(recwarn) <= 1  # of the sentences themselves
