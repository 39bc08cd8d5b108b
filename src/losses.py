"""The training objectives, each a pure function of tensors."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def info_nce(
    anchors: Float[Tensor, "batch dim"], positives: Float[Tensor, "batch dim"], temperature: float
) -> Float[Tensor, ""]:
    """Mean InfoNCE loss of a batch whose row i of `positives` matches row i of `anchors` (Gao et al. 2021, eq. 4).

    The other rows of `positives` are the negatives. Not symmetric: NT-Xent with its 2N views is another loss.
    """
    cosines = F.normalize(anchors, dim=-1) @ F.normalize(positives, dim=-1).T
    targets = torch.arange(len(cosines), device=cosines.device)
    return F.cross_entropy(cosines / temperature, targets)
