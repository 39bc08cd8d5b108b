import json
import re
import shutil
from collections import Counter
from difflib import SequenceMatcher
from pathlib import Path

import pytest

from src.corpus import load_pairs
from src.quality import order, word_overlap
from src.sentences import (
    GRAMMAR_FOLDER,
    SPLITS,
    GrammarError,
    generate_sentences,
    graded_pairs,
    load_grammar,
    load_names,
    triplets,
)

DATA = Path(__file__).parent.parent / "data"
GRAMMAR = """\
sport: curling
events:
  last_stone:
    slots:
      skip: person
      place: place
      end: 7..10
      shot: {takeout: [takeout, hit], draw: [draw, soft one]}
    wordings:
      train: ["{skip} won in {place} with a last {shot} in end {end}.", "{place}: {skip:last}, {shot:2}, {end:ordinal}."]
      validation: ["in {place} the {shot} by {skip} settled end {end:words}", "{skip}'s {shot:2}, {end:ordinal_words}, {place}"]
      test: ["{skip} {shot} {end} {place} one", "{skip} {shot} {end} {place} two"]
"""


@pytest.fixture
def grammar(tmp_path):
    """A folder with the one sport above; call it with (old, new) to change the file."""
    shutil.copy(DATA / "names.yaml", tmp_path)
    folder = tmp_path / "grammar"
    folder.mkdir()

    def write(old="", new=""):
        assert old in GRAMMAR
        (folder / "curling.yaml").write_text(GRAMMAR.replace(old, new, 1))
        return folder

    return write


@pytest.fixture(scope="module")
def corpus():
    return generate_sentences()


def test_the_committed_corpus_is_regenerated_byte_for_byte(corpus, tmp_path):
    corpus.to_csv(tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (DATA / "sport_sentences.csv").read_bytes()


def test_the_corpus_is_what_it_says(corpus):
    frame = corpus.to_pandas()
    assert len(frame) == frame["sentence"].nunique() == 20_000
    sizes = frame["sport"].value_counts()
    assert len(sizes) >= 24
    assert sizes.max() - sizes.min() <= 1
    for (_, split), rows in frame.groupby(["sport", "split"]):
        assert set(split) <= set(" ".join(SPLITS))
        templates = rows["template"].value_counts()
        assert templates.max() - templates.min() <= 1
    assert not frame["sentence"].str.contains(r"[{}]|\s\s|s's |\ba [aeiou][a-z]+ing\b").any()
    assert frame["sentence"].str[0].map(lambda c: not c.islower()).all()


def test_splits_share_no_sentence_wording_name_or_facts(corpus):
    names = {split: {name for pool in pools.values() for name in pool} for split, pools in load_names().items()}
    stated = {split: set() for split in SPLITS}
    for row in corpus:
        stated[row["split"]] |= {
            row["sentence"],
            row["template"].split("/", 2)[2] + row["event"] + row["sport"],
            row["facts"],
        }
        others = set().union(*(names[split] for split in SPLITS if split != row["split"]))
        assert not others & set(json.loads(row["facts"]).values())
    assert not (
        stated["train"] & stated["test"]
        or stated["train"] & stated["validation"]
        or stated["validation"] & stated["test"]
    )


def test_held_out_sports(corpus):
    sports = {
        split: set(corpus.filter(lambda row, s=split: row["split"] == s, keep_in_memory=True)["sport"])
        for split in SPLITS
    }
    assert len(sports["test"] - sports["train"]) == 6
    assert len(sports["validation"] - sports["train"]) == 3
    assert not (sports["test"] - sports["train"]) & (sports["validation"] - sports["train"])


def test_every_wording_states_every_fact():
    for event in load_grammar():
        for wordings in event.wordings.values():
            for wording in wordings:
                assert set(re.findall(r"\{(\w+)", wording)) == set(event.slots)


def test_another_seed_is_another_corpus():
    first, again, other = (generate_sentences(300, seed)["sentence"][:] for seed in (0, 0, 1))
    assert first == again != other


def test_adding_a_sport_is_adding_a_file(grammar):
    folder = grammar()
    shutil.copy(GRAMMAR_FOLDER / "football.yaml", folder)
    assert set(generate_sentences(60, folder=folder)["sport"]) == {"curling", "football"}


def test_forms(grammar):
    (event,) = load_grammar(grammar())
    facts = {"skip": "Mara Ellis", "place": "Ostmere", "end": "8", "shot": "draw"}
    rendered = [event.render(wording, facts) for split in ("train", "validation") for wording in event.wordings[split]]
    assert rendered == [
        "Mara Ellis won in Ostmere with a last draw in end 8.",
        "Ostmere: Ellis, soft one, 8th.",
        "In Ostmere the draw by Mara Ellis settled end eight",
        "Mara Ellis' soft one, eighth, Ostmere",
    ]


@pytest.mark.parametrize(
    ("value", "words", "ordinal", "ordinal_words"),
    [("1", "one", "1st", "first"), ("12", "twelve", "12th", "twelfth"), ("20", "twenty", "20th", "twentieth"),
     ("43", "forty-three", "43rd", "forty-third"), ("11", "eleven", "11th", "eleventh"), ("8", "eight", "8th", "eighth")],
)  # fmt: skip
def test_numbers(grammar, value, words, ordinal, ordinal_words):
    (event,) = load_grammar(grammar())
    slot = event.slots["end"]
    assert [slot.render(value, form) for form in slot.forms] == [value, words, ordinal, ordinal_words]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{skip} won", "Someone won", r"curling.yaml, line 10: the fact \{skip\} is not stated in"),
        ("{skip} won", "{captain} won", r"line 10: unknown slot \{captain\}"),
        ("{shot:2}", "{shot:3}", r"line 10: \{shot\} has no form '3'"),
        ("a last {shot}", "a {shot}", "line 10: 'a' or 'an' before a slot"),
        ("a last {shot}", "{ {shot}", "line 10: a brace that belongs to no slot"),
        ("7..10", "10..7", "line 7: the range 10..7 is empty"),
        ("7..10", "several", "line 7: a slot is person, club, place, a range"),
        ("[draw, soft one]", "[draw]", "line 8: a choice needs"),
        ("[draw, soft one]", "[draw, hit]", "line 8: two values of a choice are said in the same words"),
        ("skip: person", "skip: club", "line 5: event 'last_stone' needs at least one person"),
        ("      place: place\n", "      place: place\n      place: place\n", "line 6: 'place' is given twice"),
        ("      test:", "      exam:", "line 12: unknown key 'exam'"),
        ("    slots:", "    facts:", "line 4: unknown key 'facts'"),
        ("sport: curling\n", "", "`sport:` is missing"),
        ("sport: curling", "sport: [curling", r"curling.yaml, line \d+: "),
        ("sport: curling", "only_in: train\nsport: curling", "line 1: only_in must be validation or test"),
        ("sport: curling", "sport: curling\nfamily: rackett", r"curling.yaml, line 2: family must be one of combat, .* not 'rackett'"),
        ("sport: curling", "sport: curling\nfamily: [net, race]", "line 2: expected plain text here"),
        ("sport: curling", "sport: curling\nfamilly: target", "line 2: unknown key 'familly', expected one of sport, family"),
        (" two\"]", " one\"]", "line 12: the same entry twice"),
        (", \"{skip} {shot} {end} {place} two\"", "", "line 12: event 'last_stone' needs at least two wordings for test"),
        ("in {place} the {shot} by {skip} settled end {end:words}", "{skip} {shot} {end} {place} one", "line 12: the same wording as in curling.yaml, line 11"),
    ],
)  # fmt: skip
def test_a_broken_grammar_is_refused_with_file_line_and_reason(grammar, old, new, message):
    with pytest.raises(GrammarError, match=message):
        load_grammar(grammar(old, new))


def test_yaml_tags_are_not_executed(grammar):
    with pytest.raises(GrammarError):
        load_grammar(grammar("7..10", "!!python/object/apply:os.system ['touch hacked']"))
    assert not Path("hacked").exists()


def test_too_many_sentences_and_too_few(grammar):
    with pytest.raises(ValueError, match="count is 0"):
        generate_sentences(0)
    folder = grammar()
    with pytest.raises(GrammarError, match="no grammar file"):
        load_grammar(folder / "nothing")
    names = (folder.parent / "names.yaml").read_text()
    shared = load_names(folder)["test"]["place"][0]
    (folder.parent / "names.yaml").write_text(names.replace("place:\n    [", f"place:\n    [{shared}, ", 1))
    with pytest.raises(GrammarError, match="names in more than one split"):
        load_names(folder)


@pytest.fixture(scope="module")
def pairs():
    return graded_pairs("test", per_grade=152).to_pandas()


def test_pairs_are_what_their_grade_says(pairs):
    for row in pairs.itertuples():
        (sport1, event1, _, wording1), (sport2, event2, _, wording2) = (
            row.template1.split("/"),
            row.template2.split("/"),
        )
        facts1, facts2 = json.loads(row.facts1), json.loads(row.facts2)
        differing = sum(facts1[slot] != facts2.get(slot) for slot in facts1)
        if sport1 != sport2:
            grade = 0
        elif event1 != event2:
            grade = 1
        else:
            grade = {0: 4, 1: 3}.get(differing, 2)
            one_wording = row.kind == "wording trap" or (row.kind == "adversarial" and grade == 2)
            assert wording1 != wording2 or one_wording
        assert row.grade == grade
        assert row.sentence1 != row.sentence2


EVENTS = {(event.sport, event.name): event for event in load_grammar()}


def common(row):
    """The types of the names and numbers that both sentences' facts have in common, by the grammar's own types."""
    (types1, facts1), (types2, facts2) = (
        ({n: s.type for n, s in EVENTS[tuple(template.split("/")[:2])].slots.items()}, json.loads(facts))
        for template, facts in ((row.template1, row.facts1), (row.template2, row.facts2))
    )
    said = {word for name, value in facts1.items() if types1[name] != "choice" for word in value.split()}
    return tuple(sorted(types2[n] for n, v in facts2.items() if types2[n] != "choice" and said & set(v.split())))


def misses_a_sister(pairs):
    """Whether some grade 0 is of two families, although the first sport has a sister in the test split."""
    sports = {event.sport: event.family for event in load_grammar() if "test" in event.wordings}
    drawn = pairs[pairs["grade"] == 0][["template1", "template2"]].apply(lambda column: column.str.split("/").str[0])
    have_sisters = [family for family, sports_in in Counter(sports.values()).items() if family and sports_in > 1]
    return any(sports[a] in have_sisters and sports[a] != sports[b] for a, b in drawn.itertuples(index=False))


def test_what_is_shared_says_nothing_about_topic(pairs):
    balanced = pairs[(pairs["kind"] == "balanced") & (pairs["grade"] < 3)]
    shared = balanced.assign(shared=[common(row) for row in balanced.itertuples()])
    counts = [Counter(shared.loc[shared["grade"] == grade, "shared"]) for grade in (0, 1, 2)]
    assert counts[0] == {
        what: 38
        for what in (("person", "place"), ("number", "person"), ("number", "place"), ("number", "person", "place"))
    }
    assert counts[0] == counts[1] == counts[2]


def test_adversarial_pairs_share_most_where_they_mean_least(pairs):
    adversarial = pairs[pairs["kind"] == "adversarial"]
    one_wording = adversarial["template1"] == adversarial["template2"]
    assert one_wording.groupby(adversarial["grade"]).sum().to_dict() == {0: 0, 1: 0, 2: 76, 3: 0, 4: 0}
    for row in adversarial.itertuples():
        if row.grade < 2:
            assert len(common(row)) >= 3
        elif row.grade == 2:
            assert common(row) == ()
    assert not misses_a_sister(adversarial)
    assert misses_a_sister(pairs[pairs["kind"] == "balanced"])  # there, any other sport will do
    trap = pairs[pairs["kind"] == "name trap"]
    assert all((len(common(row)) >= 3) == (row.grade == 0) for row in trap.itertuples())
    assert Counter(zip(pairs["grade"], pairs["kind"])) == {
        **{(grade, kind): 152 for grade in range(5) for kind in ("balanced", "adversarial")},
        (0, "name trap"): 152, (2, "name trap"): 152, (3, "wording trap"): 152,
    }  # fmt: skip


@pytest.mark.parametrize("split", ["validation", "test"])
def test_word_overlap_does_not_solve_it(corpus, split):
    """The bounds that the corpus is made for, on the best of three; no pair is dropped for what a control says of it."""
    pairs = graded_pairs(split, per_grade=400).to_pandas()
    train = corpus.filter(lambda row: row["split"] == "train", keep_in_memory=True)["sentence"][:]
    controls = word_overlap(train, pairs["sentence1"].tolist(), pairs["sentence2"].tolist())
    for kind, bound in (("balanced", 0.6), ("adversarial", 0.2)):
        chosen = (pairs["kind"] == kind).to_numpy()
        spearman = {name: order(c[chosen], pairs["grade"].to_numpy()[chosen]) for name, c in controls.items()}
        assert max(spearman.values()) <= bound, spearman


def test_triplets_change_the_wording_or_one_fact():
    rows = triplets("train", 300, seed=3)
    assert rows == triplets("train", 300, seed=3) != triplets("train", 300, seed=4)
    assert len({anchor for anchor, _, _ in rows}) == 300
    for anchor, positive, negative in rows:
        assert len({anchor, positive, negative}) == 3
        same, other = (SequenceMatcher(None, anchor.split(), text.split()).ratio() for text in (negative, positive))
        assert same > max(0.6, other)  # the negative is in the anchor's wording


def test_pairs_that_cannot_be_made_are_refused(grammar):
    with pytest.raises(ValueError, match="fewer than two sports in test"):
        graded_pairs("test", 4, folder=grammar())


def test_the_handwritten_pairs_are_what_their_card_says():
    pairs = load_pairs(DATA / "handwritten_pairs.csv").to_pandas()
    assert Counter(pairs["grade"]) == dict.fromkeys(range(5), 80)
    sentences = set(pairs["sentence1"]) | set(pairs["sentence2"])
    assert len(sentences) == 300
    assert len(pairs[["sport1", "sport2"]].stack().unique()) == 33
    assert ((pairs["sport1"] == pairs["sport2"]) == (pairs["grade"] > 0)).all()
    assert not pairs[["sentence1", "sentence2"]].apply(frozenset, axis=1).duplicated().any()
    people = {name.split()[-1] for pools in load_names().values() for name in pools["person"]}
    assert not {word for sentence in sentences for word in re.findall(r"\w+", sentence)} & people


def test_the_control_topics_give_graded_pairs_by_the_same_construction():
    events = load_grammar(DATA / "control")
    assert len({event.sport for event in events}) == 16
    assert len(events) == 48
    assert all(set(event.wordings) == {"test"} and len(event.wordings["test"]) == 4 for event in events)
    pairs = graded_pairs("test", 100, folder=DATA / "control").to_pandas()
    assert Counter(pairs.loc[pairs["kind"] == "balanced", "grade"]) == dict.fromkeys(range(5), 100)
    assert not {event.sport for event in events} & {event.sport for event in load_grammar()}
