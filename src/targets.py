"""Topic and facts: the cosines that the relation loss learns, made of raw sentences and the base model alone.

What a sentence is about stays when its names and numbers are taken out; what it says of whom goes with them. Each half
is sharpened on its own, and the two are joined.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, normalize

from src.entities import remove_entities
from src.transforms import Centering, Encode, SpectralScaling

# Neighbours are looked for among this many sentences at most, so that time and memory grow with the sentences and not
# with their square; one candidate in 192 is a neighbour (16 of 3,072).
CANDIDATES, CANDIDATES_PER_NEIGHBOUR = 9_216, 192


def topic_and_facts(
    sentences: Sequence[str],
    encode: Encode,
    facts: float,
    word_weight: float = 0.7,
    rounds: int = 2,
    facts_power: float = -0.25,
) -> Float[np.ndarray, "n target_dim"]:
    """The targets of `relation_loss`, unit rows: cosine = `facts` · that of facts + (1 − `facts`) · that of topics,
    sharpened as a whole by spectral scaling; `facts` is in [0, 1].

    The *topic* is the embedding of the sentence without names and numbers, beside its word topics; in each of the
    `rounds` the mean of its nearest neighbours is added, so that sentences of one topic come together. The *facts* are
    what the embedding loses when names and numbers are taken out, with its directions made more even (`facts_power`).
    """
    bare_sentences = [
        bare if bare.strip() else sentence for bare, sentence in zip(remove_entities(sentences), sentences)
    ]
    embeddings, bare = encode(list(sentences)), encode(bare_sentences)
    topic = normalize(np.hstack([Centering().fit_transform(bare), word_weight * word_topics(bare_sentences)]))
    topic = Centering().fit_transform(topic)
    for _ in range(rounds):
        topic = add_neighbours(topic)
    joined = np.hstack([np.sqrt(1 - facts) * topic, np.sqrt(facts) * lost_facts(embeddings, bare, facts_power)])
    return SpectralScaling(0.5).fit_transform(joined).astype(np.float32)


def lost_facts(
    embeddings: Float[np.ndarray, "n dim"], bare: Float[np.ndarray, "n dim"], power: float
) -> Float[np.ndarray, "n dim"]:
    """The facts of each sentence, unit rows. A sentence without names or numbers loses nothing when they are taken
    out; its whole embedding stands in."""
    facts, lost = SpectralScaling(power).fit_transform(embeddings), embeddings - bare
    has_entities = np.linalg.norm(lost, axis=1) > 1e-3
    if has_entities.sum() > 1:
        facts[has_entities] = SpectralScaling(power).fit_transform(lost[has_entities])
    return facts


def word_topics(sentences: Sequence[str]) -> Float[np.ndarray, "n topics"]:
    """Latent semantic analysis (Deerwester et al. 1990), unit rows: words that occur together become alike."""
    tfidf = TfidfVectorizer(min_df=2, sublinear_tf=True, stop_words="english")
    try:
        weights = tfidf.fit_transform(sentences)
    except ValueError:  # no two sentences share a word, as in a script without spaces
        return np.zeros((len(sentences), 1))
    analysis = make_pipeline(TruncatedSVD(min(50, *weights.shape), random_state=0), Normalizer())
    return analysis.fit_transform(weights)


def add_neighbours(rows: Float[np.ndarray, "n dim"], candidates: int = CANDIDATES) -> Float[np.ndarray, "n dim"]:
    """Each row plus the mean of its nearest neighbours among the candidates, centred. For every 192 candidates there is
    one neighbour; a row that is no candidate has one more, because it cannot find itself."""
    chosen = np.arange(len(rows))
    if len(rows) > candidates:
        chosen = np.random.default_rng(0).choice(len(rows), candidates, replace=False)
    count = max(1, round(len(chosen) / CANDIDATES_PER_NEIGHBOUR))
    nearest = NearestNeighbors(n_neighbors=min(count + 1, len(chosen))).fit(rows[chosen]).kneighbors_graph(rows).tocoo()
    nearest.data[nearest.row == chosen[nearest.col]] = 0  # no row is its own neighbour
    return Centering().fit_transform(rows + normalize(nearest, norm="l1") @ rows[chosen])
