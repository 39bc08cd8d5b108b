from src.entities import find_entities, remove_entities


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
    assert remove_entities(sentences)[1] == "The keeper of rovers is beaten  times a match, says ."


def test_only_whole_words_are_removed():
    sentences = ["no name here", "then Bo hit 7 for Bo-Li and bobo"]
    assert remove_entities(sentences) == ["no name here", "then  hit  for  and bobo"]
