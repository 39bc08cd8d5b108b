import numpy as np
import pytest
from sklearn.preprocessing import normalize

from src.entities import find_entities, remove_entities, swap_entities
from src.targets import add_neighbours, sharpen_facts, topic_and_facts, word_topics

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
    settings = {"word_weight": word_weight, "facts_power": facts_power, "copies": 3, "neighbours": 0}
    targets = topic_and_facts(SENTENCES, encode, facts, seed=5, **settings)

    entities = find_entities(SENTENCES)
    swapped = np.mean([encode(swap_entities(SENTENCES, entities, seed)) for seed in (5, 6, 7)], axis=0)
    words = word_topics(remove_entities(SENTENCES, entities))
    topic = normalize(np.hstack([normalize(swapped - swapped.mean(0)), word_weight * words]))
    topic = normalize(topic - topic.mean(0))
    lost = scaled(encode(SENTENCES) - swapped, facts_power)
    cosines = (1 - facts) * topic @ topic.T + facts * lost @ lost.T
    centring = np.eye(8) - 1 / 8
    sharpened = np.linalg.matrix_power(centring @ cosines @ centring, 2)  # of the centred rows, at a power of 0.5
    lengths = np.sqrt(np.diag(sharpened))
    assert targets.dtype == np.float32
    assert np.allclose(targets @ targets.T, sharpened / np.outer(lengths, lengths), atol=1e-3)


def test_words_and_the_power_of_the_facts_change_what_they_should(encode):
    def cosines(**settings):
        targets = topic_and_facts(SENTENCES, encode, neighbours=0, **settings)
        return targets @ targets.T

    def gap(cosines):
        return cosines[SAME_EVENT].mean() - cosines[~SAME_EVENT].mean()

    assert gap(cosines(facts=0.0, word_weight=2.0)) > gap(cosines(facts=0.0, word_weight=0.0)) + 0.01
    evenness = [np.square(cosines(facts=1.0, facts_power=power)).mean() for power in (-0.5, 0.0, 0.5)]
    assert evenness == sorted(evenness)  # the more directions share, the less the cosines differ from 0
    assert evenness[-1] > evenness[0] + 0.01


def test_the_seed_draws_the_copies(encode):
    first, same, other = (topic_and_facts(SENTENCES, encode, 0.3, seed=seed, copies=2) for seed in (0, 0, 9))
    assert np.array_equal(first, same)
    assert not np.allclose(first @ first.T, other @ other.T, atol=1e-3)


def test_topic_and_facts_are_told_apart():
    """An encoder that knows one direction a name and one an event: facts = 0 sees events alone, facts = 1 names alone."""
    names = sorted({word for sentence in SENTENCES for word in sentence.split()[1:3]})

    def encode(sentences):
        rows = np.zeros((len(sentences), len(names) + 2), np.float32)
        for row, sentence in zip(rows, sentences):
            row[-2 if "goal" in sentence else -1] = 1
            row[[names.index(word) for word in names if word in sentence]] = 0.7
        return normalize(rows)

    topic, facts = (topic_and_facts(SENTENCES, encode, share, copies=32) for share in (0.0, 1.0))
    assert np.allclose(np.linalg.norm(topic, axis=1), 1, atol=1e-5)
    assert (topic @ topic.T)[SAME_EVENT].min() > 0.8
    assert (topic @ topic.T)[~SAME_EVENT].max() < -0.5
    assert (facts @ facts.T)[SAME_NAME].min() > (facts @ facts.T)[~SAME_NAME].max() + 0.3


def test_sentences_without_names_are_not_all_alike(encode):
    """In many domains most have none. Such a sentence loses nothing when names are swapped, and two of them must not be
    alike for that."""
    rng, verbs = np.random.default_rng(0), "opens reads writes closes parses sorts joins splits maps folds".split()
    plain = [f"it {a} the file and {b} a line" for a in verbs for b in verbs]
    named = [f"then {a} calls Ada {n}" for n, a in enumerate(verbs)]
    no_spaces = ["".join(rng.choice(list("日本語文章単位"), 12)) for _ in range(100)]  # no two share a word
    for sentences in (plain, plain + named, plain + named[:1], no_spaces):
        swapped = encode(swap_entities(sentences, find_entities(sentences), seed=0))
        facts = sharpen_facts(encode(sentences), swapped, -0.25)
        assert np.allclose(np.linalg.norm(facts, axis=1), 1, atol=1e-5)
        cosines = (facts @ facts.T)[np.triu_indices(100, 1)]
        assert np.quantile(cosines, 0.95) < 0.7
        assert abs(cosines.mean()) < 0.1
        assert np.allclose(np.linalg.norm(topic_and_facts(sentences, encode, 0.3), axis=1), 1, atol=1e-5)


def test_neighbours_are_looked_for_in_blocks_and_among_some(unit_rows):
    rows = np.vstack([unit_rows(300, 16, seed) + offset for seed, offset in ((0, 0.2), (1, -0.2))]).astype(np.float64)
    whole = add_neighbours(rows, 8)
    assert np.allclose(add_neighbours(rows, 8, block=7), whole)
    assert np.allclose(add_neighbours(rows), add_neighbours(rows, 3))  # one in 192 of 600
    distances = np.square(rows[:, None] - rows).sum(-1) + 9 * np.eye(600)
    by_hand = rows + rows[np.argsort(distances)[:, :8]].mean(1)
    assert np.allclose(whole, normalize(by_hand - by_hand.mean(0)))
    some = add_neighbours(rows, 4, candidates=300)  # half the rows, half the neighbours
    assert (some * whole).sum(1).min() > 0.8
    assert np.allclose(add_neighbours(rows, 0), normalize(rows - rows.mean(0)))


def test_copies_that_get_too_long_are_not_warned_of(tiny):
    with pytest.warns(UserWarning) as warned:
        tiny.max_length = 9
        topic_and_facts(SENTENCES, lambda sentences: tiny.encode(sentences, progress=False), facts=0.3)
    assert len(warned) == 1  # of the sentences themselves
    assert "longer than max_length" in str(warned[0].message)
