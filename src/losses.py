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


def graded_loss(
    first: Float[Tensor, "batch dim"], second: Float[Tensor, "batch dim"], relatedness: Float[Tensor, " batch"]
) -> Float[Tensor, ""]:
    """Mean squared difference between the cosine of row i of `first` and `second` and how related the two are, in
    [0, 1]: the regression objective of sentence-BERT (Reimers & Gurevych 2019, section 3)."""
    return F.mse_loss(F.cosine_similarity(first, second, dim=-1), relatedness)
