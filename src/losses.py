"""The training losses, each a pure function of tensors."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def info_nce(
    anchors: Float[Tensor, "batch dim"],
    positives: Float[Tensor, "batch dim"],
    temperature: float,
    hard_negatives: Float[Tensor, "batch dim"] | None = None,
) -> Float[Tensor, ""]:
    """Mean InfoNCE loss of a batch whose row i of `positives` matches row i of `anchors` (Gao et al. 2021, eq. 4).

    The other rows of `positives` are the negatives, and with `hard_negatives` all rows of these too (their eq. 5). It
    is not symmetric: NT-Xent with its 2N views is another loss.
    """
    candidates = positives if hard_negatives is None else torch.cat([positives, hard_negatives])
    cosines = F.normalize(anchors, dim=-1) @ F.normalize(candidates, dim=-1).T
    targets = torch.arange(len(cosines), device=cosines.device)
    return F.cross_entropy(cosines / temperature, targets)


def relation_loss(
    embeddings: Float[Tensor, "batch dim"], targets: Float[Tensor, "batch target_dim"], stretch: float
) -> Float[Tensor, ""]:
    """Mean squared difference between a batch's cosines and `stretch` times those of its `targets` (unit rows).

    This is relational distillation (Park et al. 2019, arXiv 1904.05068) with a constant for each row left free, because
    only differences of cosines order sentences: the loss of row i is the variance of its differences over the other
    rows.
    """
    rows = F.normalize(embeddings, dim=-1)
    differences = rows @ rows.T - stretch * (targets @ targets.T)
    diagonal = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    return differences[~diagonal].view(len(rows), -1).var(dim=1, correction=0).mean()


def ranking_loss(
    cosines: Float[Tensor, " batch"], grades: Float[Tensor, " batch"], temperature: float
) -> Float[Tensor, ""]:
    """log(1 + Σ exp((c_i - c_j) / temperature)) over all i, j where pair i has a lower grade than pair j.

    This is CoSENT (Su 2022, kexue.fm/archives/8847), as in sentence-transformers, which says scale for 1 / temperature.
    Only the order of the pairs counts: a constant added to all cosines changes nothing.
    """
    differences = (cosines[:, None] - cosines) / temperature
    too_high = differences[grades[:, None] < grades]  # above 0 where the pair of the lower grade has the higher cosine
    return torch.cat([too_high.new_zeros(1), too_high]).logsumexp(0)
