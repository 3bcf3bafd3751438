"""Text as the search terms of one owner: words of alphabets as they are, other scripts in pairs of
characters, so that a Chinese word is found in the middle of a sentence without a dictionary.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator

LONGEST = 40  # characters of a word that count

# Scripts that are written without spaces, or whose words are glued together.
_JOINED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+"
)
_WORD = re.compile(r"\w+")


def index(owner_id: int, texts: Iterable[str]) -> list[str]:
    """What to store so that these texts are found."""
    mark = f"{owner_id:x}w"
    return sorted({mark + term for text in texts for term, _ in _terms(text, whole=True)})


def query(owner_id: int, text: str) -> str | None:
    """A tsquery that finds texts with all words of this one, each of them also as the beginning of
    a longer word; None where there is nothing to look for."""
    mark = f"{owner_id:x}w"
    wanted = dict.fromkeys(_terms(text, whole=False))
    # Lexemes consist of word characters alone, so quotes are all the escaping there is to do.
    return " & ".join(f"'{mark}{term}'{':*' if more else ''}" for term, more in wanted) or None


def _terms(text: str, *, whole: bool) -> Iterator[tuple[str, bool]]:
    """Terms, and whether a longer one may also match. A run of joined characters gives its pairs;
    `whole` adds its last character, so that a single one is always the beginning of some term."""
    text = unicodedata.normalize("NFKC", text).casefold()
    for match in _WORD.finditer(text):
        word, start = match[0], 0
        for run in _JOINED.finditer(word):
            if run.start() > start:
                yield word[start : run.start()][:LONGEST], True
            characters, start = run[0], run.end()
            for n in range(len(characters) - 1):
                yield characters[n : n + 2], False
            if whole or len(characters) == 1:
                yield characters[-1], True
        if start < len(word):
            yield word[start:][:LONGEST], True
