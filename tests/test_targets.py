import numpy as np
import pytest
from sklearn.preprocessing import normalize

from src.entities import remove_entities
from src.targets import add_neighbours, lost_facts, topic_and_facts, word_topics

SENTENCES = [
    f"Yesterday {who} {what}"  # names are known by their capitals inside a sentence
    for what in ("scored the winning goal in the cup final", "rowed the boat across the lake in record time")
    for who in ("Anna Rossi", "Bo Lind", "Carla Meyer", "Dmitri Popov")
]
SAME_EVENT = np.kron(np.eye(2), np.ones((4, 4))) > 0
SAME_NAME = np.tile(np.eye(4), (2, 2)) > 0


@pytest.fixture
def encode():
    """Each word has a random vector, and a sentence the mean of its words' vectors: an encoder of bags of words."""
    rng, vectors = np.random.default_rng(0), {}

    def embed(sentences):
        rows = [sum(vectors.setdefault(w, rng.standard_normal(32)) for w in sentence.split()) for sentence in sentences]
        return normalize(np.array(rows)).astype(np.float32)

    return embed


def scaled(rows, power):
    """Spectral scaling by the singular values, whose squares are the variances."""
    left, values, _ = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    kept = values > 1e-4 * values[0]
    return normalize(left[:, kept] * values[kept] ** (1 + 2 * power))


@pytest.mark.parametrize(
    ("facts", "word_weight", "facts_power"), [(0.3, 0.7, -0.25), (0.0, 0.2, -0.25), (0.0, 2.0, -0.25), (1.0, 0.7, 0.0)]
)
def test_the_targets_by_hand(encode, facts, word_weight, facts_power):
    settings = {"word_weight": word_weight, "facts_power": facts_power, "rounds": 0}
    targets = topic_and_facts(SENTENCES, encode, facts, **settings)

    without = remove_entities(SENTENCES)
    bare, words = encode(without), word_topics(without)
    topic = normalize(np.hstack([normalize(bare - bare.mean(0)), word_weight * words]))
    topic = normalize(topic - topic.mean(0))
    lost = scaled(encode(SENTENCES) - bare, facts_power)
    cosines = (1 - facts) * topic @ topic.T + facts * lost @ lost.T
    centring = np.eye(8) - 1 / 8
    sharpened = np.linalg.matrix_power(centring @ cosines @ centring, 2)  # of the centred rows, at a power of 0.5
    lengths = np.sqrt(np.diag(sharpened))
    assert targets.dtype == np.float32
    assert np.allclose(targets @ targets.T, sharpened / np.outer(lengths, lengths), atol=1e-3)


def test_the_power_of_the_facts_makes_their_directions_even(encode):
    def mean_square(power):
        targets = topic_and_facts(SENTENCES, encode, facts=1.0, facts_power=power)
        return np.square(targets @ targets.T).mean()

    evenness = [mean_square(power) for power in (-0.5, 0.0, 0.5)]
    assert evenness == sorted(evenness)  # the more directions share, the less the cosines differ from 0
    assert evenness[-1] > evenness[0] + 0.01


def test_topic_and_facts_are_told_apart():
    """An encoder that knows one direction a name and one an event: facts = 0 sees events alone, facts = 1 names alone."""
    names = sorted({word for sentence in SENTENCES for word in sentence.split()[1:3]})

    def encode(sentences):
        rows = np.zeros((len(sentences), len(names) + 2), np.float32)
        for row, sentence in zip(rows, sentences):
            row[-2 if "goal" in sentence else -1] = 1
            row[[names.index(word) for word in names if word in sentence]] = 0.7
        return normalize(rows)

    topic, facts = (topic_and_facts(SENTENCES, encode, share) for share in (0.0, 1.0))
    assert np.allclose(np.linalg.norm(topic, axis=1), 1, atol=1e-5)
    assert (topic @ topic.T)[SAME_EVENT].min() > 0.8
    assert (topic @ topic.T)[~SAME_EVENT].max() < -0.5
    assert (facts @ facts.T)[SAME_NAME].min() > (facts @ facts.T)[~SAME_NAME].max() + 0.3


def test_sentences_without_names_are_not_all_alike(encode):
    """In many domains most have none. Such a sentence loses nothing when names are taken out, and two of them must not be
    alike for that."""
    rng, verbs = np.random.default_rng(0), "opens reads writes closes parses sorts joins splits maps folds".split()
    plain = [f"it {a} the file and {b} a line" for a in verbs for b in verbs]
    named = [f"then {a} calls Ada {n}" for n, a in enumerate(verbs)]
    no_spaces = ["".join(rng.choice(list("日本語文章単位"), 12)) for _ in range(100)]  # no two share a word
    for sentences in (plain, plain + named, plain + named[:1], no_spaces):
        bare = encode(remove_entities(sentences))
        facts = lost_facts(encode(sentences), bare, -0.25)
        assert np.allclose(np.linalg.norm(facts, axis=1), 1, atol=1e-5)
        cosines = (facts @ facts.T)[np.triu_indices(100, 1)]
        assert np.quantile(cosines, 0.95) < 0.7
        assert abs(cosines.mean()) < 0.1
        assert np.allclose(np.linalg.norm(topic_and_facts(sentences, encode, 0.3), axis=1), 1, atol=1e-5)


def test_neighbours_are_looked_for_among_some(unit_rows):
    rows = np.vstack([unit_rows(300, 16, seed) + offset for seed, offset in ((0, 0.2), (1, -0.2))]).astype(np.float64)
    whole = add_neighbours(rows)
    distances = np.square(rows[:, None] - rows).sum(-1) + 9 * np.eye(600)
    by_hand = rows + rows[np.argsort(distances)[:, :3]].mean(1)  # one in 192 of 600
    assert np.allclose(whole, normalize(by_hand - by_hand.mean(0)))
    some = add_neighbours(rows, candidates=400)  # two neighbours, and no sampled row is its own; three of the others
    chosen = np.random.default_rng(0).choice(600, 400, replace=False)
    nearest, sampled = chosen[np.argsort(distances[:, chosen])], np.isin(np.arange(600), chosen)[:, None]
    by_hand = rows + np.where(sampled, rows[nearest[:, :2]].mean(1), rows[nearest[:, :3]].mean(1))
    assert np.allclose(some, normalize(by_hand - by_hand.mean(0)))


def test_a_sentence_of_names_alone_keeps_its_words(encode):
    sentences = [*SENTENCES, "2 1", "Then Anna Rossi said so"]
    assert np.isfinite(topic_and_facts(sentences, encode, 0.5)).all()
