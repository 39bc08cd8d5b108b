"""Topic and facts: the cosines that the relation loss learns, made of raw sentences and the base model alone.

What a sentence is about stays when its names and numbers are swapped for others; what it says of whom goes. Each half
is sharpened on its own, and the two are joined.
"""

import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, normalize

from src.entities import find_entities, remove_entities, swap_entities
from src.transforms import Centering, Encode, SpectralScaling

# Neighbours are looked for among this many sentences at most, so that time and memory grow with the sentences and not
# with their square; one candidate in 192 is a neighbour (16 of 3,072).
CANDIDATES, CANDIDATES_PER_NEIGHBOUR = 9_216, 192


def topic_and_facts(
    sentences: Sequence[str],
    encode: Encode,
    facts: float,
    seed: int = 0,
    copies: int = 4,
    word_weight: float = 0.7,
    neighbours: int | None = None,
    facts_power: float = -0.25,
) -> Float[np.ndarray, "n target_dim"]:
    """The targets of `relation_loss`, unit rows: the cosine of two is that of their facts, with the share `facts` in
    [0, 1], plus that of their topics, sharpened as a whole by spectral scaling.

    `copies`, `word_weight` and `neighbours` act on the topic, `facts_power` on the facts; figures/constants.png shows
    what each does. `neighbours` None is one candidate in 192.
    """
    entities = find_entities(sentences)
    with warnings.catch_warnings():  # a copy may be cut because its new names are longer
        warnings.simplefilter("ignore", UserWarning)
        swapped = np.mean([encode(swap_entities(sentences, entities, seed + k)) for k in range(copies)], axis=0)
    words = word_topics(remove_entities(sentences, entities))
    topic = normalize(np.hstack([Centering().fit_transform(swapped), word_weight * words]))
    topic = add_neighbours(topic, neighbours)
    facts_rows = sharpen_facts(encode(list(sentences)), swapped, facts_power)
    joined = np.hstack([np.sqrt(1 - facts) * topic, np.sqrt(facts) * facts_rows])
    return SpectralScaling(0.5).fit_transform(joined).astype(np.float32)


def sharpen_facts(
    embeddings: Float[np.ndarray, "n dim"], swapped: Float[np.ndarray, "n dim"], power: float
) -> Float[np.ndarray, "n dim"]:
    """The facts of each sentence, unit rows: what its embedding loses when names and numbers are swapped, its
    directions made more even by spectral scaling with `power`. A sentence without names or numbers loses nothing; its
    whole embedding stands in."""
    facts, lost = SpectralScaling(power).fit_transform(embeddings), embeddings - swapped
    has_entities = np.linalg.norm(lost, axis=1) > 1e-3
    if has_entities.sum() > 1:
        facts[has_entities] = SpectralScaling(power).fit_transform(lost[has_entities])
    return facts


def word_topics(sentences: Sequence[str], dimensions: int = 50) -> Float[np.ndarray, "n topics"]:
    """Latent semantic analysis (Deerwester et al. 1990), unit rows: words that occur together become alike."""
    tfidf = TfidfVectorizer(min_df=2, sublinear_tf=True, stop_words="english")
    try:
        weights = tfidf.fit_transform(sentences)
    except ValueError:  # no two sentences share a word, as in a script without spaces
        return np.zeros((len(sentences), 1))
    analysis = make_pipeline(TruncatedSVD(min(dimensions, *weights.shape), random_state=0), Normalizer())
    return analysis.fit_transform(weights)


def add_neighbours(
    rows: Float[np.ndarray, "n dim"], neighbours: int | None = None, candidates: int = CANDIDATES, block: int = 1_024
) -> Float[np.ndarray, "n dim"]:
    """Each row plus the mean of its nearest `neighbours`, centred: sentences of one topic come together."""
    if neighbours == 0:
        return Centering().fit_transform(rows)
    among = rows
    if len(rows) > candidates:
        among = np.random.default_rng(0).choice(rows, candidates, replace=False)
    if neighbours is None:
        neighbours = max(1, round(len(among) / CANDIDATES_PER_NEIGHBOUR))
    search = NearestNeighbors(n_neighbors=min(neighbours, len(among) - 1)).fit(among)
    nearest = search.kneighbors(None if among is rows else rows, return_distance=False)  # None: not its own neighbour
    means = [among[nearest[start : start + block]].mean(1) for start in range(0, len(rows), block)]
    return Centering().fit_transform(rows + np.concatenate(means))
