"""Cuts a text into passages, and says by their words how near a passage is to a question."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from typing_extensions import TypedDict

SIZE = 600  # characters: a few claims, so that a citation still points at something
WIDE = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
WIDE_PAIR = re.compile(f"[{WIDE}]{{2}}")
# What nearly every question and passage has says nothing about either.
COMMON_WORDS = frozenset(
    re.findall(
        r"\w+",
        """a about an and any are as at be by can do does for from has have how i if in is it its
        long many may me much my no not of on or our so tell that the their there they this to was
        we were what when where which who why will with you your""",
    )
)
COMMON_WIDE = re.compile(
    "什么|怎么|如何|多少|多久|几天|是否|可以|需要|请问|我们|你们|这个|那个|哪些|哪里|[吗呢的了是在有和谁几]"
)


class Passage(TypedDict):
    id: str
    document: str
    start: int  # where it stands in the text of the document
    end: int
    text: str


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """The spans of the sentences. A line end ends one too, and so does `SIZE`."""
    sentence = re.compile(rf".{{1,{SIZE}}}?(?:[。！？]|[.!?](?=\s|$)|$)|.{{{SIZE}}}")
    for line in re.finditer(r"[^\n]*\S", text):
        for found in sentence.finditer(text, *line.span()):
            yield found.span()


def cut(document: str, text: str) -> list[Passage]:
    """Passages of whole sentences. A new paragraph begins a new one, unless it is a short line
    such as a title, which belongs to what follows.
    """
    spans: list[tuple[int, int]] = []
    for start, end in sentences(text):
        if spans:
            first, last = spans[-1]
            paragraph = "\n" in text[last:start].strip(" \t\r") and last - first > SIZE // 10
            if end - first <= SIZE and not (paragraph and "\n\n" in text[last:start]):
                spans[-1] = first, end
                continue
        spans.append((start + len(text[start:end]) - len(text[start:end].lstrip()), end))
    return [
        Passage(
            id=f"{document}#{start}-{end}",
            document=document,
            start=start,
            end=end,
            text=text[start:end],
        )
        for start, end in spans
    ]


def keywords(text: str) -> str:
    """The text without the words that say nothing, unless it has no others."""
    words = re.findall(r"\w+", COMMON_WIDE.sub(" ", text))
    return " ".join(word for word in words if word.lower() not in COMMON_WORDS) or text


def terms(text: str) -> set[str]:
    """Words in lower case without the commonest endings, and pairs of neighbours in scripts that
    put no space between words.
    """
    text = text.lower()
    words = set(re.findall(rf"[^\W{WIDE}]+", text)) - COMMON_WORDS
    found = {re.sub(r"(?<=\w{3})(?:ing|ed|es|e|(?<!s)s)$", "", word) for word in words}
    for run in re.findall(f"[{WIDE}]+", COMMON_WIDE.sub(" ", text)):
        found |= {run[i : i + 2] for i in range(max(len(run) - 1, 1))}
    return found


def relevance(question: str, texts: Sequence[str]) -> list[float]:
    """For each text, how much of the question it has, from 0 to 1: rare terms count for more."""
    asked = terms(question)
    held = [terms(text) & asked for text in texts]
    seen = Counter(term for found in held for term in found)
    # A pair that straddles two words is in no text. Where a pair that was found holds one of its
    # characters, it is such a straddler, and nothing is missing.
    first, last = {pair[0] for pair in seen}, {pair[-1] for pair in seen}
    asked -= {t for t in asked - set(seen) if WIDE_PAIR.fullmatch(t) and _straddles(t, first, last)}
    weight = {term: math.log(1 + len(texts) / (seen[term] + 0.5)) for term in asked}
    whole = sum(weight.values()) or 1.0
    return [sum(weight[term] for term in found) / whole for found in held]


def _straddles(pair: str, first: set[str], last: set[str]) -> bool:
    return pair[0] in last or pair[1] in first
