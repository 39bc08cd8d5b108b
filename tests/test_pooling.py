import pytest
import torch
from sentence_transformers.sentence_transformer.modules import Pooling

from src.pooling import pool

STATES = tuple(torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(i)) for i in range(4))
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_equals_sentence_transformers(pooling):
    oracle = Pooling(8, pooling_mode=pooling)({"token_embeddings": STATES[-1].clone(), "attention_mask": MASK})
    assert torch.allclose(pool(STATES, MASK, pooling), oracle["sentence_embedding"], atol=1e-6)


def test_first_last_mean_uses_the_first_transformer_layer_not_the_embeddings():
    both = [pool((state,), MASK, "mean") for state in (STATES[1], STATES[3])]
    assert torch.allclose(pool(STATES, MASK, "first_last_mean"), sum(both) / 2, atol=1e-6)


@pytest.mark.parametrize("pooling", ["cls", "mean", "max", "first_last_mean"])
def test_padding_does_not_count_and_the_input_stays_as_it_was(pooling):
    other = tuple(torch.where(MASK[..., None] == 1, state, 1e3) for state in STATES)
    before = other[-1].clone()
    assert torch.allclose(pool(STATES, MASK, pooling), pool(other, MASK, pooling), atol=1e-6)
    assert torch.equal(other[-1], before)


def test_unknown_pooling():
    with pytest.raises(ValueError, match="pooling is 'median', expected one of cls, mean"):
        pool(STATES, MASK, "median")
