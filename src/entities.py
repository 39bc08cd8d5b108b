"""Names and numbers in raw text: find them, and put others in their place."""

import random
import re
from collections.abc import Mapping, Sequence
from itertools import cycle

_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*(?:\.\d+)?")  # a hyphen joins, and a point before digits
_STARTS_SENTENCE = re.compile(r'(?:^|[.!?:"“])\s*$')  # the text before a word that is written large for its place alone


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


def replace_words(sentence: str, replacements: Mapping[str, str]) -> str:
    """The sentence with each word that is a key of `replacements` replaced by its value."""
    return _WORD.sub(lambda word: replacements.get(word[0], word[0]), sentence)


def remove_entities(sentences: Sequence[str], entities: Sequence[Sequence[str]]) -> list[str]:
    """Each sentence without its names and numbers, which `find_entities` returned for it."""
    return [replace_words(sentence, dict.fromkeys(words, "")) for sentence, words in zip(sentences, entities)]


def swap_entities(sentences: Sequence[str], entities: Sequence[Sequence[str]], seed: int) -> list[str]:
    """Each sentence with the names and numbers of another one, drawn with the seed: what happens stays, to whom and how
    often changes. Names replace names and numbers numbers, in order; a repeated one is replaced by the same."""
    having = [words for words in entities if words] or [[]]
    donors = random.Random(seed).choices(having, k=len(sentences))
    return [_with_entities(*sides) for sides in zip(sentences, entities, donors)]


def _with_entities(sentence: str, own: Sequence[str], donor: Sequence[str]) -> str:
    numbers, names = (cycle([w for w in donor if w[0].isdigit() == is_digit]) for is_digit in (True, False))
    replacements = {word: next(numbers if word[0].isdigit() else names, word) for word in dict.fromkeys(own)}
    return replace_words(sentence, replacements)
