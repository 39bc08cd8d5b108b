import re
import shutil
from pathlib import Path

import pytest

from src.grammar import GRAMMAR_FOLDER, load_grammar, load_names
from src.records import ROOT

CURLING = """\
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
def curling(tmp_path):
    """Writes a grammar folder with the one sport above, after replacing `old` by `new` in its file."""
    shutil.copy(ROOT / "data" / "names.yaml", tmp_path)
    folder = tmp_path / "grammar"
    folder.mkdir()

    def write(old="", new=""):
        assert old in CURLING
        (folder / "curling.yaml").write_text(CURLING.replace(old, new, 1))
        return folder

    return write


def test_every_wording_states_every_fact():
    for event in load_grammar():
        for wordings in event.wordings.values():
            for wording in wordings:
                assert set(re.findall(r"\{(\w+)", wording.text)) == set(event.slots)


def test_forms(curling):
    (event,) = load_grammar(curling())
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
     ("43", "forty-three", "43rd", "forty-third"), ("11", "eleven", "11th", "eleventh"), ("8", "eight", "8th", "eighth"),
     ("99", "ninety-nine", "99th", "ninety-ninth"), ("13", "thirteen", "13th", "thirteenth"), ("5", "five", "5th", "fifth"),
     ("60", "sixty", "60th", "sixtieth"), ("52", "fifty-two", "52nd", "fifty-second"), ("10", "ten", "10th", "tenth")],
)  # fmt: skip
def test_whole_numbers(curling, value, words, ordinal, ordinal_words):
    (event,) = load_grammar(curling())
    forms = event.slots["end"].forms
    assert {form: state(value) for form, state in forms.items()} == {
        "": value, "words": words, "ordinal": ordinal, "ordinal_words": ordinal_words
    }  # fmt: skip


@pytest.mark.parametrize(
    ("bounds", "values"), [("9.8..10.1", ("9.8", "9.9", "10.0", "10.1")), ("98..100", ("98", "99", "100"))]
)
def test_decimals_and_numbers_from_100_have_no_form_in_words(curling, bounds, values):
    folder = curling("7..10", bounds)
    with pytest.raises(ValueError, match=r"\{end\} .*'ordinal'"):
        load_grammar(folder)
    file = folder / "curling.yaml"
    file.write_text(re.sub(r"\{end:\w+\}", "{end}", file.read_text()))
    slot = load_grammar(folder)[0].slots["end"]
    assert slot.values == values
    assert list(slot.forms) == [""]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{skip} won", "Someone won", r"curling.yaml, line 10: .*\{skip\} is not stated"),
        ("{skip} won", "{captain} won", r"line 10: .*\{captain\}"),
        ("{shot:2}", "{shot:3}", r"line 10: \{shot\} .*'3'"),
        ("{skip:last}", "{skip:short}", r"line 10: \{skip\} .*'short'"),
        ("a last {shot}", "a {shot}", "line 10: 'a' or 'an'"),
        ("a last {shot}", "{ {shot}", "line 10: a brace"),
        ("7..10", "10..7", "line 7: .*10..7 is empty"),
        ("7..10", "several", "line 7: a slot is .*'several'"),
        ("[draw, soft one]", "[draw]", "line 8: a choice needs"),
        ("[draw, soft one]", "[draw, hit]", "line 8: two values of a choice"),
        ("[draw, soft one]", "[]", "line 8: expected a list"),
        ("skip: person", "skip: club", "line 5: .*'last_stone' needs .*person"),
        ("      place: place\n", "      place: place\n      place: place\n", "line 7: 'place' is given twice"),
        ("      test:", "      exam:", "line 12: unknown key 'exam'"),
        ("    slots:", "    facts:", "line 4: unknown key 'facts'"),
        ("sport: curling\n", "", "line 1: `sport:`"),
        ("sport: curling", "sport: [curling", r"curling.yaml.*, line \d+"),
        ("sport: curling", "only_in: train\nsport: curling", "line 1: only_in must be .*'train'"),
        ("sport: curling", "sport: curling\nfamily: rackett", "curling.yaml, line 2: family must be .*combat.*, not 'rackett'"),
        ("sport: curling", "sport: curling\nfamily: [net, race]", "line 2: expected plain text"),
        ("sport: curling", "sport: curling\nfamilly: target", "line 2: unknown key 'familly'.*family"),
        (" two\"]", " one\"]", "line 12: the same wording as .*line 12"),
        (", \"{skip} {shot} {end} {place} two\"", "", "line 12: .*at least two wordings"),
        ("in {place} the {shot} by {skip} settled end {end:words}", "{skip} {shot} {end} {place} one", "line 12: the same wording as .*curling.yaml.*, line 11"),
        (CURLING, "", "curling.yaml, line 1: the file is empty"),
        (CURLING, "curling", "line 1: expected `key: value`"),
    ],
)  # fmt: skip
def test_a_broken_grammar_is_refused_with_file_line_and_reason(curling, old, new, message):
    with pytest.raises(ValueError, match=message):
        load_grammar(curling(old, new))


def test_wordings_name_their_registers(curling):
    old = ' ["{skip} {shot} {end} {place} one", "{skip} {shot} {end} {place} two"]'
    named = """
        report: "{skip} {shot} {end} {place} one"
        fan: "{skip} {shot} {end} {place} two"
"""
    (event,) = load_grammar(curling(old, named))
    assert [wording.register for wording in event.wordings["test"]] == ["report", "fan"]
    assert [wording.register for wording in event.wordings["train"]] == ["0", "1"]
    for wrong, message in (
        (named.replace("fan", "poem"), "line 14: unknown key 'poem', expected one of report, headline, live, fan"),
        (named.replace("fan", "report"), "line 14: 'report' is given twice"),
        (named.replace("two", "one"), "line 14: the same wording as .*line 13"),
        ('\n        report: "{skip} {shot} {end} {place} one"\n', "line 13: .*at least two wordings"),
    ):
        with pytest.raises(ValueError, match=message):
            load_grammar(curling(old, wrong))


def test_a_wording_repeated_in_another_file_or_with_other_slot_names_is_refused(curling):
    folder = curling()
    other = CURLING.replace("skip", "captain").replace("sport: curling", "sport: bowls")
    (folder / "bowls.yaml").write_text(other)
    with pytest.raises(ValueError, match=r"curling.yaml, line 10: the same wording as .*bowls.yaml.*, line 10"):
        load_grammar(folder)


def test_yaml_tags_are_not_executed(curling):
    with pytest.raises(ValueError):
        load_grammar(curling("7..10", "!!python/object/apply:os.system ['touch hacked']"))
    assert not Path("hacked").exists()


def test_a_folder_without_grammar_files_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no grammar file"):
        load_grammar(tmp_path)


def test_names(curling):
    names = load_names(curling())
    assert list(names) == ["train", "validation", "test"]
    words = [{word for pool in pools.values() for name in pool for word in name.split()} for pools in names.values()]
    assert len(set().union(*words)) == sum(map(len, words))
    assert "Mara Ellwood" in names["train"]["person"]


def test_broken_names_are_refused(curling):
    folder = curling()
    file = folder.parent / "names.yaml"
    text = file.read_text()
    shared = load_names(folder)["test"]["place"][0]
    for old, new, message in (
        ("place:\n    [", f"place:\n    [{shared}, ", f"more than one split: {shared}"),
        ("validation:", "exam:", r"names.yaml, line \d+: .*'exam'"),
        ("  given:\n    [", "  given:\n    [Mara, ", r"line 5: .*twice"),
        (
            text[text.index("  club:") : text.index("  place:")],
            "  club: [Old Lynxes]\n",
            "fewer than 20 club names for train",
        ),
    ):
        file.write_text(text.replace(old, new, 1))
        with pytest.raises(ValueError, match=message):
            load_names(folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [("own_goall", "'own_goall' is no other event"), ("penalty_save", "'penalty_save' is no other event")],
)
def test_a_twin_is_another_event_of_the_file(tmp_path, line, message):
    path = tmp_path / "football.yaml"
    text = (GRAMMAR_FOLDER / "football.yaml").read_text()
    path.write_text(text.replace("  penalty_save:\n", f"  penalty_save:\n    twin: {line}\n"))
    with pytest.raises(ValueError, match=rf"football\.yaml, line \d+: twin: {message}"):
        load_grammar(tmp_path)
    path.write_text(text.replace("  penalty_save:\n", "  penalty_save:\n    twin: goal_stands\n"))
    with pytest.raises(ValueError, match="has a twin already"):
        load_grammar(tmp_path)


def test_all_events_of_the_corpus_are_twins():
    twins = {(event.sport, event.name): event.twin for event in load_grammar()}
    assert all(twins[sport, twin] == name for (sport, name), twin in twins.items())
