"""Names and numbers in raw text: find them, and take them out."""

import re
from collections.abc import Sequence

_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*(?:\.\d+)?")  # a hyphen joins, and a point before digits
_STARTS_SENTENCE = re.compile(r'(?:^|[.!?:"“])\s*$')  # a word behind it has a capital in any case


def find_entities(sentences: Sequence[str]) -> list[list[str]]:
    """The names and numbers in each sentence, in order, found from the raw text alone.

    A name is a word with a capital inside a sentence that no sentence writes small; a number is written in digits.
    Number words are not found, and in a language that gives every noun a capital, too many words are.
    """
    words = [list(_WORD.finditer(sentence)) for sentence in sentences]
    written_small = {word[0].lower() for matches in words for word in matches if not word[0][0].isupper()}
    names = {
        word[0]
        for sentence, matches in zip(sentences, words)
        for word in matches
        if word[0][0].isupper()
        and word[0].lower() not in written_small
        and not _STARTS_SENTENCE.search(sentence[: word.start()])
    }
    return [[word[0] for word in matches if word[0] in names or word[0][0].isdigit()] for matches in words]


def remove_entities(sentences: Sequence[str]) -> list[str]:
    """Each sentence without its names and numbers."""
    return [
        _WORD.sub(lambda word, own=set(words): "" if word[0] in own else word[0], sentence)
        for sentence, words in zip(sentences, find_entities(sentences))
    ]
