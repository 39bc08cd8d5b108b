import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss

from src.losses import info_nce

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
