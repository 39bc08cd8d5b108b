from src.entities import remove_entities


def test_names_are_found_in_raw_text():
    sentences = [
        "Goal! Ana Silva-Reyes scores in the 74th minute for Rovers: Silva-Reyes again.",
        "The keeper of rovers is beaten 3.5 times a match, says Ana.",
        "“Ana is the best”, they say. Minutes later it is two.",
    ]
    assert remove_entities(sentences) == [
        "Goal!   scores in the  minute for Rovers:  again.",  # Rovers is written small elsewhere; Goal begins a sentence
        "The keeper of rovers is beaten  times a match, says .",
        "“ is the best”, they say. Minutes later it is two.",  # Ana: from the others, where it does not come first
    ]


def test_only_whole_words_are_removed():
    sentences = ["no name here", "then Bo hit 7 for Bo-Li and bobo"]
    assert remove_entities(sentences) == ["no name here", "then  hit  for  and bobo"]
