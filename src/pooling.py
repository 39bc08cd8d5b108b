"""Token states to one vector a sentence."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

POOLINGS = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens"}  # what sentence-transformers calls them


def pool(
    last_hidden_state: Float[Tensor, "batch tokens dim"],
    attention_mask: Int[Tensor, "batch tokens"],
    pooling: str,
) -> Float[Tensor, "batch dim"]:
    """One vector a sentence from a transformer's last layer; padding does not count.

    - `cls`: the first token, before any pooler (SimCSE at test time, Gao et al. 2021, section 6.3).
    - `mean`: the mean over tokens (Reimers & Gurevych 2019).
    - `max`: the maximum over tokens.
    """
    mask = attention_mask.unsqueeze(-1)
    if pooling == "cls":
        return last_hidden_state[:, 0]
    if pooling == "mean":
        mask = mask.to(last_hidden_state.dtype)
        return (last_hidden_state * mask).sum(1) / mask.sum(1)
    if pooling == "max":
        return last_hidden_state.masked_fill(mask == 0, -torch.inf).amax(1)
    raise ValueError(f"pooling is {pooling!r}, expected one of {', '.join(POOLINGS)}")
