"""Text as search terms."""

import pytest

from clew.runtime import words


def found(text: str, query: str) -> bool:
    """Whether Postgres would find `text` by `query`: its own rule, spelled out."""
    terms = words.index(1, [text])
    wanted = words.query(1, query)
    if wanted is None:
        return False
    for part in wanted.split(" & "):
        term = part.removesuffix(":*").strip("'")
        if not any(t.startswith(term) if part.endswith(":*") else t == term for t in terms):
            return False
    return True


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("今天的会议纪要已经发送", "会议"),
        ("今天的会议纪要已经发送", "会"),
        ("今天的会议纪要已经发送", "送"),
        ("今天的会议纪要已经发送", "会议纪要"),
        ("我在用Postgres数据库", "postgres"),
        ("我在用Postgres数据库", "数据"),
        ("Straße nach Köln", "STRASSE köln"),
        ("quarterly reports", "report"),
        ("東京タワーに行きました", "タワー"),
        ("안녕하세요 세계", "세계"),
        ("สวัสดีชาวโลก", "ชาวโลก"),
        ("ｆｕｌｌ ｗｉｄｔｈ", "full width"),
        ("it's a test-case", "test case"),
        ("𠮷野家で", "野家"),
        ("x" * 300, "x" * 300),
    ],
)
def test_is_found(text: str, query: str) -> None:
    assert found(text, query)


@pytest.mark.parametrize(
    ("text", "query"),
    [("今天的会议", "议会"), ("report", "reports"), ("anything", "!!!"), ("anything", ""),
     ("会计和议案", "会议")],
)  # fmt: skip
def test_is_not_found(text: str, query: str) -> None:
    assert not found(text, query)


def test_every_term_is_marked_with_its_owner() -> None:
    assert words.index(255, ["a 会议"]) == ["ffwa", "ffw会议", "ffw议"]
    assert words.query(255, "a' | 'b") == "'ffwa':* & 'ffwb':*"
