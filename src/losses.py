"""The training objectives, each a pure function of tensors, and the targets that this repository's own learns."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize
from torch import Tensor

from src.corpus import names_and_numbers, replace_words, swap_names
from src.postprocessing import Centering, SpectralScaling


def info_nce(
    anchors: Float[Tensor, "batch dim"],
    positives: Float[Tensor, "batch dim"],
    temperature: float,
    hard_negatives: Float[Tensor, "batch dim"] | None = None,
) -> Float[Tensor, ""]:
    """Mean InfoNCE loss of a batch whose row i of `positives` matches row i of `anchors` (Gao et al. 2021, eq. 4).

    The other rows of `positives` are the negatives, and with `hard_negatives` all rows of these too (their eq. 5). Not
    symmetric: NT-Xent with its 2N views is another loss.
    """
    candidates = positives if hard_negatives is None else torch.cat([positives, hard_negatives])
    cosines = F.normalize(anchors, dim=-1) @ F.normalize(candidates, dim=-1).T
    targets = torch.arange(len(cosines), device=cosines.device)
    return F.cross_entropy(cosines / temperature, targets)


def relation_loss(
    embeddings: Float[Tensor, "batch dim"], targets: Float[Tensor, "batch target_dim"], stretch: float
) -> Float[Tensor, ""]:
    """Mean squared difference between a batch's cosines and `stretch` times those of its `targets` (unit rows), apart
    from a constant of each row and without the diagonal (relational distillation, Park et al. 2019, arXiv 1904.05068).

    The constant is left free because only differences of cosines order sentences. A batch of one or two loses nothing.
    """
    rows = F.normalize(embeddings, dim=-1)
    differences = rows @ rows.T - stretch * (targets @ targets.T)
    others = ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    differences = differences[others].view(len(rows), len(rows) - 1)
    return (differences - differences.mean(1, keepdim=True)).square().sum() / max(1, differences.numel())


def take_apart(
    sentences: Sequence[str],
    encode: Callable[[Sequence[str]], Float[np.ndarray, "n dim"]],
    copies: int = 4,
    seed: int = 0,
    word_weight: float = 0.7,
    neighbours: int | None = None,
    facts_power: float = -0.25,
) -> tuple[Float[np.ndarray, "n topic_dim"], Float[np.ndarray, "n dim"]]:
    """What each of the `sentences` is about, and what it says of whom, each as unit rows, from raw sentences and the
    embeddings of a model alone.

    What stays of an embedding when names and numbers are swapped, the mean over `copies`, is the *topic*; what goes is
    the *facts*, made more even by spectral scaling with `facts_power`; of a sentence without any, all of it is both.
    The topic is made sharper by what the corpus knows: which words keep company, with `word_weight`, and which
    sentences are `neighbours`, by default one in 192. (figures/constants.png shows what each number does.)
    """
    found = names_and_numbers(sentences)
    with warnings.catch_warnings():  # of a copy whose new names make it too long; of the sentences, training warns
        warnings.simplefilter("ignore", UserWarning)
        swapped = np.mean([encode(swap_names(sentences, found, seed + k)) for k in range(copies)], axis=0)
    topic = np.hstack([Centering().fit_transform(swapped), word_weight * _word_topics(sentences, found)])
    embeddings = encode(sentences)
    facts, gone = SpectralScaling(facts_power).fit_transform(embeddings), embeddings - swapped
    some = np.linalg.norm(gone, axis=1) > 1e-3
    if some.sum() > 1:
        facts[some] = SpectralScaling(facts_power).fit_transform(gone[some])
    return _with_neighbours(normalize(topic), neighbours), facts


def topic_and_facts(
    topic: Float[np.ndarray, "n topic_dim"], facts: Float[np.ndarray, "n dim"], share: float
) -> Float[np.ndarray, "n target_dim"]:
    """The targets of `relation_loss`, unit rows: their cosines are those of the topic and those of the facts, the facts
    with a `share` in [0, 1], sharpened as a whole by spectral scaling."""
    return SpectralScaling(0.5).fit_transform(np.hstack([np.sqrt(1 - share) * topic, np.sqrt(share) * facts]))


def _word_topics(
    sentences: Sequence[str], found: list[list[str]], dimensions: int = 50
) -> Float[np.ndarray, "n topics"]:
    """Latent semantic analysis of the words that are no names or numbers (Deerwester et al. 1990), as unit rows."""
    plain = [replace_words(sentence, dict.fromkeys(ours, "")) for sentence, ours in zip(sentences, found)]
    try:
        weights = TfidfVectorizer(min_df=2, sublinear_tf=True, stop_words="english").fit_transform(plain)
    except ValueError:  # no two sentences share a word, as in a script without spaces
        return np.zeros((len(plain), 1))
    return normalize(TruncatedSVD(min(dimensions, *weights.shape), random_state=0).fit_transform(weights))


def _with_neighbours(
    rows: Float[np.ndarray, "n dim"], neighbours: int | None, among: int = 9_216, block: int = 1_024
) -> Float[np.ndarray, "n dim"]:
    """Each row plus the mean of its nearest others', centred: sentences of one topic come together. They are looked for
    `among` so many at most, drawn at random, so that time and memory do not grow with the square of the rows."""
    if neighbours == 0:
        return Centering().fit_transform(rows)
    all_of_them = len(rows) <= among
    candidates = rows if all_of_them else np.random.default_rng(0).choice(rows, among, replace=False)
    neighbours = neighbours or max(1, round(len(candidates) / 192))
    search = NearestNeighbors(n_neighbors=min(neighbours, len(candidates) - 1)).fit(candidates)
    nearest = search.kneighbors(None if all_of_them else rows, return_distance=False)  # None: others than itself
    means = [candidates[nearest[start : start + block]].mean(1) for start in range(0, len(rows), block)]
    return Centering().fit_transform(rows + np.concatenate(means))
