import re

from src.entities import find_entities, remove_entities, swap_entities


def test_names_are_found_in_raw_text():
    sentences = [
        "Goal! Ana Silva-Reyes scores in the 74th minute for Rovers: Silva-Reyes again.",
        "The keeper of rovers is beaten 3.5 times a match, says Ana.",
        "“Ana is the best”, they say. Minutes later it is two.",
    ]
    assert find_entities(sentences) == [
        ["Ana", "Silva-Reyes", "74th", "Silva-Reyes"],  # Rovers is written small elsewhere; Goal begins a sentence
        ["3.5", "Ana"],
        ["Ana"],  # known from the other sentences, where it does not come first
    ]
    assert remove_entities(sentences[1:2], [["3.5", "Ana"]]) == [
        "The keeper of rovers is beaten  times a match, says ."
    ]


def test_only_whole_words_are_removed():
    sentences, entities = ["no name here", "Bo hit 7 of 77 for Bolton"], [[], ["Bo", "7"]]
    assert remove_entities(sentences, entities) == ["no name here", " hit  of 77 for Bolton"]


def test_swapping_keeps_what_happens():
    sentences = [f"In {place} it was {who} {who} who hit {n} fours." for place, who, n in
                 (("Ely", "Bo", 7), ("Bath", "Cy", 81), ("Hove", "Di", 305))]  # fmt: skip
    entities = find_entities(sentences)
    copies = swap_entities(sentences, entities, seed=1)
    assert copies == swap_entities(sentences, entities, seed=1) != swap_entities(sentences, entities, seed=2)
    for copy in copies:
        place, who, again, number = re.fullmatch(r"In (\w+) it was (\w+) (\w+) who hit (\d+) fours\.", copy).groups()
        assert who == again != place
        assert [place, who, who, number] in entities  # all from one and the same sentence


def test_names_replace_names_and_numbers_numbers():
    swapped = swap_entities(["Only 7 for Bo"] + [""] * 99, [["7", "Bo"]] + [["8", "Cy"]] + [[]] * 98, seed=0)
    assert swapped[0][:6] == "Only 8"
    assert swap_entities(["Only 7 for Bo"] * 2, [["7", "Bo"]] * 2, seed=0) == ["Only 7 for Bo"] * 2
    assert swap_entities(["no name here", "none here"], [[], []], seed=0) == ["no name here", "none here"]
