import json
import re
import shutil
from collections import Counter

import pandas as pd
import pytest
import yaml

from src.grammar import GRAMMAR_FOLDER, REGISTERS, SPLITS, load_grammar, load_names
from src.pairs import load_pairs
from src.quality import order, word_overlap
from src.records import ROOT
from src.sentences import generate_sentences, graded_pairs

DATA = ROOT / "data"
CURLING = """\
sport: curling
events:
  last_stone:
    slots: {skip: person, place: place}
    wordings:
      train: ["{skip} {place} one", "{skip} {place} two"]
      validation: ["{skip} {place} three", "{skip} {place} four"]
      test: ["{skip} {place} five", "{skip} {place} six"]
"""


@pytest.fixture
def curling(tmp_path):
    """A grammar folder with the one sport above."""
    shutil.copy(DATA / "names.yaml", tmp_path)
    folder = tmp_path / "grammar"
    folder.mkdir()
    (folder / "curling.yaml").write_text(CURLING)
    return folder


@pytest.fixture(scope="module")
def corpus():
    return generate_sentences()


@pytest.fixture(scope="module")
def all_pairs():
    return pd.concat(
        [
            graded_pairs("train", per_grade=600, kinds=("balanced",)),
            graded_pairs("validation", per_grade=400),
            graded_pairs("test", per_grade=400),
        ],
        ignore_index=True,
    )


@pytest.fixture(scope="module")
def pairs(all_pairs):
    return all_pairs[all_pairs["split"] == "test"]


@pytest.fixture(scope="module")
def events():
    return {(event.sport, event.name): event for event in load_grammar()}


def test_the_committed_files_are_regenerated_byte_for_byte(corpus, all_pairs):
    assert corpus.to_csv(index=False).encode() == (DATA / "sport_sentences.csv").read_bytes()
    assert (
        all_pairs.drop(columns=["facts1", "facts2"]).to_csv(index=False).encode()
        == (DATA / "graded_pairs.csv").read_bytes()
    )


# ---- sentences ----


def test_the_corpus_is_what_it_says(corpus):
    assert list(corpus) == ["sentence", "sport", "event", "register", "template", "facts", "split"]
    assert len(corpus) == corpus["sentence"].nunique() == 20_000
    sizes = corpus["sport"].value_counts()
    assert len(sizes) >= 24
    assert sizes.max() - sizes.min() <= 1
    for (_, split), rows in corpus.groupby(["sport", "split"]):
        assert split in SPLITS
        templates = rows["template"].value_counts()
        assert templates.max() - templates.min() <= 1
    assert not corpus["sentence"].str.contains(r"[{}]|\s\s|s's |\ba [aeiou][a-z]+ing\b").any()
    assert not corpus["sentence"].str[0].str.islower().any()


def test_splits_share_no_sentence_wording_name_or_facts(corpus):
    names = {split: {name for pool in pools.values() for name in pool} for split, pools in load_names().items()}
    stated = {}
    for split, rows in corpus.groupby("split"):
        others = set().union(*(names[other] for other in SPLITS if other != split))
        assert not others & {value for facts in rows["facts"] for value in json.loads(facts).values()}
        assert rows["template"].str.split("/").str[2].eq(split).all()
        stated[split] = {*rows["sentence"], *rows["facts"]}
    assert len(set().union(*stated.values())) == sum(map(len, stated.values()))


def test_splits_do_not_differ_in_style(events, corpus):
    """Each event has one wording a register in every split; questions, and I, we or you, are in fans' posts alone."""
    for event in events.values():
        for wordings in event.wordings.values():
            assert [wording.register for wording in wordings] == list(REGISTERS)
    personal = r"\b(?:I|I'm|I've|I'd|I'll|we|we're|we've|us|our|me|my|you|you're|your)\b"
    style = pd.DataFrame(
        {
            "headline": corpus["register"] == "headline",
            "question": corpus["sentence"].str.contains("?", regex=False),
            "person": corpus["sentence"].str.contains(personal, case=False),
        }
    )
    shares = style.groupby(corpus["split"]).mean()
    assert (shares.max() - shares.min()).max() < 0.03
    assert not style.loc[corpus["register"] != "fan", ["question", "person"]].any().any()


def test_some_stories_are_told_again_or_corrected(corpus):
    """About 15 % of the sentences have a companion: the same facts in another wording, or one fact changed."""
    with_companion = set()
    for _, rows in corpus.groupby(["sport", "event", "split"]):
        facts = pd.DataFrame([json.loads(facts) for facts in rows["facts"]], index=rows.index)
        for slot in facts:
            others = facts.drop(columns=slot)
            with_companion |= set(rows.index[others.duplicated(keep=False)])
    assert 0.12 < len(with_companion) / len(corpus) < 0.19
    repeats = corpus.groupby(["event", "facts"])["template"]
    assert (repeats.nunique() == repeats.size()).all()  # never in the same wording
    assert repeats.size().max() <= 4
    assert (repeats.size() > 1).sum() > 500


def test_held_out_sports(corpus):
    sports = {split: set(rows["sport"]) for split, rows in corpus.groupby("split")}
    assert len(sports["test"] - sports["train"]) == 6
    assert len(sports["validation"] - sports["train"]) == 3
    assert not (sports["test"] - sports["train"]) & (sports["validation"] - sports["train"])


def test_another_seed_draws_other_sentences(curling):
    first, again, other = (generate_sentences(300, seed, curling)["sentence"].tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_adding_a_sport_is_adding_a_file(curling):
    shutil.copy(GRAMMAR_FOLDER / "football.yaml", curling)
    assert set(generate_sentences(60, folder=curling)["sport"]) == {"curling", "football"}


def test_counts_that_cannot_be_met_are_refused(curling):
    with pytest.raises(ValueError, match="count is 0"):
        generate_sentences(0)
    assert len(generate_sentences(3, folder=curling)) == 3  # none for validation
    names = yaml.safe_load((curling.parent / "names.yaml").read_text())
    few = {split: {kind: pool[:20] for kind, pool in pools.items()} for split, pools in names.items()}
    few["train"] |= {"given": few["train"]["given"][:5], "surname": few["train"]["surname"][:4]}
    (curling.parent / "names.yaml").write_text(yaml.safe_dump(few))  # 20 persons, 20 places: 800 sentences
    with pytest.raises(ValueError, match=r"curling, train: .*7,000 .*(79.|800)$"):
        generate_sentences(10_000, folder=curling)


# ---- pairs ----


def test_pairs_are_what_their_grade_says(pairs):
    assert Counter(zip(pairs["grade"], pairs["kind"])) == {
        **{(grade, kind): 400 for grade in range(5) for kind in ("balanced", "adversarial")},
        (0, "name trap"): 400, (2, "name trap"): 400, (3, "wording trap"): 400,
    }  # fmt: skip
    for row in pairs.itertuples():
        sport1, event1, _, wording1 = row.template1.split("/")
        sport2, event2, _, wording2 = row.template2.split("/")
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


def types_in_common(row, events):
    """The types of the names and numbers that both sentences' facts have in common, by the grammar's own types."""
    slots1, slots2 = (events[tuple(t.split("/")[:2])].slots for t in (row.template1, row.template2))
    facts1, facts2 = json.loads(row.facts1), json.loads(row.facts2)
    said = {word for name, value in facts1.items() if slots1[name].type != "choice" for word in value.split()}
    types = [(slots2[name].type, set(value.split())) for name, value in facts2.items()]
    return tuple(sorted(slot_type for slot_type, words in types if slot_type != "choice" and said & words))


def test_what_is_shared_says_nothing_about_topic(pairs, events):
    balanced = pairs[(pairs["kind"] == "balanced") & (pairs["grade"] < 3)]
    shared = balanced.assign(shared=[types_in_common(row, events) for row in balanced.itertuples()])
    counts = [Counter(rows["shared"]) for _, rows in shared.groupby("grade")]
    combinations = (("person", "place"), ("number", "person"), ("number", "place"), ("number", "person", "place"))
    assert counts == [dict.fromkeys(combinations, 100)] * 3


def test_adversarial_pairs_share_most_where_they_mean_least(pairs, events):
    adversarial = pairs[pairs["kind"] == "adversarial"]
    one_wording = adversarial["template1"] == adversarial["template2"]
    assert one_wording.groupby(adversarial["grade"]).sum().to_dict() == {0: 0, 1: 0, 2: 200, 3: 0, 4: 0}
    for row in adversarial[adversarial["grade"] < 3].itertuples():
        assert len(types_in_common(row, events)) >= 3 if row.grade < 2 else types_in_common(row, events) == ()
    trap = pairs[pairs["kind"] == "name trap"]
    assert all((len(types_in_common(row, events)) >= 3) == (row.grade == 0) for row in trap.itertuples())
    wording_trap = pairs[pairs["kind"] == "wording trap"]
    assert (wording_trap["template1"] == wording_trap["template2"]).all()


def misses_a_sister(pairs, events):
    """Whether some grade 0 is of two families, although the first sport has a sister in the test split."""
    families = {event.sport: event.family for event in events.values() if "test" in event.wordings}
    sizes = Counter(families.values())
    sports = [pairs.loc[pairs["grade"] == 0, column].str.split("/").str[0] for column in ("template1", "template2")]
    return any(families[a] and sizes[families[a]] > 1 and families[a] != families[b] for a, b in zip(*sports))


def test_adversarial_pairs_are_of_sister_sports(pairs, events):
    assert not misses_a_sister(pairs[pairs["kind"] == "adversarial"], events)
    assert misses_a_sister(pairs[pairs["kind"] == "balanced"], events)  # there, any other sport will do


def test_two_thirds_of_grade_1_are_of_twins_and_all_of_it_where_pairs_mislead(pairs, events):
    def shares(kind):
        rows = pairs[(pairs["kind"] == kind) & (pairs["grade"] == 1)]
        keys = [rows[column].str.rsplit("/", n=2).str[0] for column in ("template1", "template2")]
        assert (keys[0] != keys[1]).all()
        return sum(events[tuple(one.split("/"))].twin == two.split("/")[1] for one, two in zip(*keys)) / len(rows)

    assert shares("adversarial") == 1
    assert 0.6 < shares("balanced") < 0.7  # half by plan, the others by chance: twins can share most


def test_training_pairs_are_of_training_sentences_alone(all_pairs):
    training = all_pairs[all_pairs["split"] == "train"]
    assert Counter(training["grade"]) == dict.fromkeys(range(5), 600)
    assert set(training["kind"]) == {"balanced"}
    assert set(training["template1"].str.split("/").str[2]) == {"train"}


def test_word_overlap_is_as_data_readme_says(corpus, all_pairs):
    """What the best control reaches: natural wordings of one event share its terms."""
    train = corpus.loc[corpus["split"] == "train", "sentence"].tolist()
    controls = word_overlap(train, all_pairs["sentence1"].tolist(), all_pairs["sentence2"].tolist())
    grades = all_pairs["grade"].to_numpy()
    for (split, kind), rows in all_pairs.groupby(["split", "kind"]):
        if kind in ("balanced", "adversarial"):
            best = max(order(cosines[rows.index], grades[rows.index]) for cosines in controls.values())
            assert best == pytest.approx(0.77 if kind == "balanced" else 0.50, abs=0.04), (split, kind)


def test_pairs_that_cannot_be_made_are_refused(curling):
    with pytest.raises(ValueError, match="fewer than two sports in test"):
        graded_pairs("test", 4, folder=curling)
    shutil.copy(GRAMMAR_FOLDER / "football.yaml", curling)
    with pytest.raises(ValueError, match="curling: no pair of grade 2"):  # if it shares both facts, none differs
        graded_pairs("test", 4, folder=curling)


# ---- the other data files ----


def test_the_handwritten_pairs_are_what_their_card_says():
    pairs = load_pairs(DATA / "handwritten_pairs.csv")
    assert Counter(pairs["grade"]) == dict.fromkeys(range(5), 80)
    sentences = set(pairs["sentence1"]) | set(pairs["sentence2"])
    assert len(sentences) == 800
    assert len(pairs[["sport1", "sport2"]].stack().unique()) == 88
    assert (pairs.groupby(["grade", "difficulty"]).size() == 40).all()
    assert (pairs[["reader1", "reader2"]].eq(pairs["grade"], axis=0)).all().all()
    assert ((pairs["sport1"] == pairs["sport2"]) == (pairs["grade"] > 0)).all()
    assert not pairs[["sentence1", "sentence2"]].apply(frozenset, axis=1).duplicated().any()
    people = {name.split()[-1] for pools in load_names().values() for name in pools["person"]}
    assert not {word for sentence in sentences for word in re.findall(r"\w+", sentence)} & people


def test_the_control_topics_give_graded_pairs_by_the_same_construction(events):
    topics = load_grammar(DATA / "control")
    assert len({event.sport for event in topics}) == 16
    assert len(topics) == 48
    assert all(set(event.wordings) == {"test"} and len(event.wordings["test"]) == 4 for event in topics)
    pairs = graded_pairs("test", 100, folder=DATA / "control")
    assert Counter(pairs.loc[pairs["kind"] == "balanced", "grade"]) == dict.fromkeys(range(5), 100)
    assert not {event.sport for event in topics} & {event.sport for event in events.values()}
