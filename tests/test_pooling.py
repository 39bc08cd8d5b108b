import pytest
import torch
from sentence_transformers.sentence_transformer.modules import Pooling

from src.pooling import pool

STATES = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_equals_sentence_transformers(pooling):
    oracle = Pooling(8, pooling_mode=pooling)({"token_embeddings": STATES.clone(), "attention_mask": MASK})
    assert torch.allclose(pool(STATES, MASK, pooling), oracle["sentence_embedding"], atol=1e-6)


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_padding_does_not_count_and_the_input_stays_as_it_was(pooling):
    other = torch.where(MASK[..., None] == 1, STATES, 1e3)
    before = other.clone()
    assert torch.allclose(pool(STATES, MASK, pooling), pool(other, MASK, pooling), atol=1e-6)
    assert torch.equal(other, before)


def test_unknown_pooling():
    with pytest.raises(ValueError, match="'median'"):
        pool(STATES, MASK, "median")
