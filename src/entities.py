"""Names and numbers in raw text: find them and take them out."""

import re
from collections.abc import Sequence

_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*(?:\.\d+)?")  # a hyphen joins, and a point before digits
_STARTS_SENTENCE = re.compile(r'(?:^|[.!?:"“])\s*$')  # a word right after this has a capital anyway


def remove_entities(sentences: Sequence[str]) -> list[str]:
    """Each sentence without its names and numbers, found from the raw text alone.

    A name is a word that has a capital inside some sentence and is written small in none; a number is written in
    digits. Number words stay, and in a language that gives every noun a capital, too many words go.
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

    def kept(word: re.Match) -> str:
        return "" if word[0] in names or word[0][0].isdigit() else word[0]

    return [_WORD.sub(kept, sentence) for sentence in sentences]
