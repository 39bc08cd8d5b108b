"""Token states to one vector a sentence."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

POOLINGS = ("cls", "mean", "max", "first_last_mean")


def pool(
    hidden_states: tuple[Float[Tensor, "batch tokens dim"], ...],
    attention_mask: Int[Tensor, "batch tokens"],
    pooling: str,
) -> Float[Tensor, "batch dim"]:
    """One vector a sentence from a transformer's hidden states (embedding layer first, last layer last).

    - `cls`: the first token of the last layer, before any pooler (SimCSE at test time, Gao et al. 2021, section 6.3).
    - `mean`: mean over tokens of the last layer, padding left out (Reimers & Gurevych 2019).
    - `max`: maximum over tokens of the last layer, padding left out.
    - `first_last_mean`: mean over tokens of the average of the first *transformer* layer (index 1; index 0 is the
      embedding layer) and the last (Su et al. 2021).
    """
    last, mask = hidden_states[-1], attention_mask.unsqueeze(-1).to(hidden_states[-1].dtype)
    if pooling == "cls":
        return last[:, 0]
    if pooling == "mean":
        return (last * mask).sum(1) / mask.sum(1)
    if pooling == "max":
        return last.masked_fill(mask == 0, -torch.inf).amax(1)
    if pooling == "first_last_mean":
        return ((hidden_states[1] + last) / 2 * mask).sum(1) / mask.sum(1)
    raise ValueError(f"pooling is {pooling!r}, expected one of {', '.join(POOLINGS)}")
