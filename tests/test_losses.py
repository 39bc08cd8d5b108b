import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss
from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss

from src.losses import graded_loss, info_nce, relation_loss

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


@given(st.integers(2, 12), st.integers(0, 99))
def test_graded_loss_equals_that_of_sentence_transformers(batch, seed):
    torch.manual_seed(seed)
    first, second = torch.randn(2, batch, 8)
    grades = torch.randint(0, 5, (batch,)) / 4
    oracle = CosineSimilarityLoss(None).compute_loss_from_embeddings([first, second], grades)
    assert graded_loss(first, second, grades).item() == pytest.approx(oracle.item(), abs=1e-6)
    assert graded_loss(first, 3 * first, torch.ones(batch)).item() == pytest.approx(0, abs=1e-9)
